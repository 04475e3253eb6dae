"""The Faust application: behaviour events in, recommendations and churn risk out.

items ─► encode ─► item-embeddings ─► catalogue of every preference worker
searches, reviews, users ─► encode ─► embedded-texts ─┐
clickstream, users ───────────────────────────────────┴► preferences ─► recommendations, churn-risk,
                                                                        search-results,
                                                        review-insights
preferences ─► item-pairs ─► neighbours ─► item-neighbours ─► catalogue of every preference worker
anything that fails ─► dead-letters
"""
