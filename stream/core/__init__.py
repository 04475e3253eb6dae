"""Pure decisions: values in, values out; no Kafka, no clock, no models loaded."""
