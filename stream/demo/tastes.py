"""The tastes of the simulated shop's shoppers: what is sold for each, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Taste:
    """One taste. ``products`` maps a product to its middle price, in the shop's currency."""

    name: str
    locale: str
    category: str
    products: dict[str, float]
    adjectives: tuple[str, ...]
    brands: tuple[str, ...]
    queries: tuple[str, ...]
    description: str

    def title(self, brand: str, adjective: str, product: str, generation: int = 1) -> str:
        """Return a title as the language of the taste writes it, with later generations named."""
        if self.locale == "zh":
            return f"{brand}{adjective}{product}" + (f" 第{generation}代" if generation > 1 else "")
        return f"{brand} {adjective} {product}" + (f" Mk {generation}" if generation > 1 else "")


def _taste(
    locale: str,
    name: str,
    category: str,
    products: dict[str, float],
    adjectives: str,
    brands: str,
    queries: str,
    description: str,
) -> Taste:
    """Return a taste; its lists are written as the language writes lists."""
    comma = "、" if locale == "zh" else ", "
    return Taste(
        name=name,
        locale=locale,
        category=category,
        products=products,
        adjectives=tuple(adjectives.split(comma)),
        brands=tuple(brands.split(comma)),
        queries=tuple(queries.split(comma)),
        description=description,
    )


TASTES: tuple[Taste, ...] = (
    _taste(
        "en",
        "trail running",
        "Sports > Running",
        {
            "trail running shoes": 120,
            "running vest": 90,
            "hydration flask": 18,
            "running socks": 14,
            "running headlamp": 55,
            "trekking poles": 70,
            "wind jacket": 85,
        },
        "lightweight, waterproof, grippy, breathable, ultra-distance",
        "Northridge, Skyfell, Ravine",
        "trail running shoes, running vest with flasks, headlamp for night runs, light wind jacket",
        "For long days on mountain trails.",
    ),
    _taste(
        "en",
        "espresso",
        "Kitchen > Coffee",
        {
            "espresso machine": 480,
            "burr coffee grinder": 160,
            "coffee beans 1 kg": 24,
            "milk pitcher": 22,
            "coffee tamper": 30,
            "espresso cups": 28,
            "coffee scale": 45,
        },
        "classic, barista, compact, Italian, professional",
        "Crema Lab, Portafino, Molina",
        "espresso machine, coffee grinder, fresh coffee beans, milk pitcher for latte art",
        "For espresso, cappuccino and latte at home.",
    ),
    _taste(
        "en",
        "cats",
        "Pets > Cats",
        {
            "cat tree": 95,
            "cat litter": 16,
            "wet cat food": 21,
            "feather cat toy": 8,
            "cat carrier": 48,
            "cat scratching post": 39,
            "cat bed": 34,
        },
        "cosy, natural, playful, large, travel",
        "Whiskerly, Purrhaus, Mittens & Co",
        "cat tree, wet cat food, toy for kittens, quiet cat litter",
        "For cats and kittens that live indoors.",
    ),
    _taste(
        "en",
        "gaming",
        "Electronics > Gaming",
        {
            "mechanical gaming keyboard": 110,
            "gaming mouse": 60,
            "gaming headset": 85,
            "game controller": 65,
            "gaming monitor": 290,
            "gaming chair": 230,
            "mouse pad": 18,
        },
        "wireless, RGB, tournament, pro, ergonomic",
        "Voltfang, Pixelforge, Respawn",
        "gaming mouse, mechanical keyboard, wireless headset for gaming, gaming monitor",
        "For PC and console players.",
    ),
    _taste(
        "en",
        "baby",
        "Baby > Care",
        {
            "baby stroller": 320,
            "diapers": 32,
            "baby bottle": 14,
            "baby sleeping bag": 42,
            "baby monitor": 99,
            "teething ring": 9,
            "baby carrier wrap": 64,
        },
        "soft, organic, travel, premium, newborn",
        "Littlenest, Bimbi, Cloudcrib",
        "stroller for newborns, diapers size 2, anti-colic baby bottle, baby sleeping bag",
        "For newborns, babies and their tired parents.",
    ),
    _taste(
        "en",
        "camping",
        "Outdoor > Camping",
        {
            "camping tent": 210,
            "sleeping bag": 110,
            "camping stove": 58,
            "sleeping mat": 62,
            "camping lantern": 29,
            "folding camp chair": 44,
            "cool box": 75,
        },
        "two-person, compact, packable, four-season, family",
        "Tarn, Campfell, Wildhaven",
        "two-person tent, warm sleeping bag, gas camping stove, lantern for the tent",
        "For nights under the stars.",
    ),
    _taste(
        "en",
        "baking",
        "Kitchen > Baking",
        {
            "stand mixer": 280,
            "cake tin": 17,
            "sourdough proofing basket": 23,
            "bread flour 5 kg": 12,
            "piping bag set": 15,
            "rolling pin": 19,
            "baking sheet": 16,
        },
        "everyday, artisan, professional, organic, heavy-duty",
        "Crumb & Co, Levain, Bakersfield",
        "stand mixer, sourdough basket, strong bread flour, cake tin 26 cm",
        "For bread, cakes and pastry.",
    ),
    _taste(
        "en",
        "photography",
        "Electronics > Cameras",
        {
            "mirrorless camera": 980,
            "portrait lens 85 mm": 520,
            "carbon tripod": 190,
            "camera backpack": 115,
            "polarising filter": 48,
            "camera strap": 27,
            "memory card 128 GB": 33,
        },
        "full-frame, pro, weatherproof, travel, compact",
        "Lumora, Aperton, Halide",
        "mirrorless camera, 85 mm portrait lens, travel tripod, polarising filter",
        "For photographers at home and on the road.",
    ),
    _taste(
        "en",
        "yoga",
        "Sports > Yoga",
        {
            "yoga mat": 45,
            "yoga block": 13,
            "yoga leggings": 52,
            "meditation cushion": 38,
            "yoga strap": 11,
            "foam roller": 26,
            "yoga bolster": 49,
        },
        "non-slip, cork, recycled, high-waist, calming",
        "Asanaya, Stillwater, Lotusline",
        "non-slip yoga mat, cork yoga block, high-waist leggings, meditation cushion",
        "For yoga, stretching and meditation.",
    ),
    _taste(
        "en",
        "gardening",
        "Home > Garden",
        {
            "pruning shears": 34,
            "raised garden bed": 120,
            "tomato seeds": 4,
            "garden hose": 39,
            "potting soil 40 l": 13,
            "watering can": 25,
            "gardening gloves": 12,
        },
        "heirloom, classic, organic, durable, rustic",
        "Greenfold, Thistle & Spade, Loam",
        "tomato seeds, raised bed, sharp pruning shears, peat-free potting soil",
        "For balconies, beds and greenhouses.",
    ),
    _taste(
        "zh",
        "茶具",
        "家居 > 茶具 Teaware",
        {
            "紫砂壶": 260,
            "盖碗": 58,
            "功夫茶具套装": 199,
            "品茗杯": 29,
            "竹制茶盘": 128,
            "公道杯": 39,
            "龙井茶叶": 88,
        },
        "手工、青瓷、复古、家用、礼盒装",
        "宜兴坊、青云窑、茗山堂",
        "紫砂壶、功夫茶具套装、盖碗 陶瓷、明前龙井茶叶",
        "适合日常泡茶与待客。",
    ),
    _taste(
        "zh",
        "书法",
        "文化 > 书法 Calligraphy",
        {
            "狼毫毛笔": 46,
            "半生熟宣纸": 35,
            "徽墨墨汁": 28,
            "端砚": 168,
            "颜真卿字帖": 22,
            "羊毛毡垫": 19,
            "笔架": 32,
        },
        "初学者、专业、大楷、小楷、仿古",
        "文翰斋、墨池轩、兰亭阁",
        "毛笔 初学者、宣纸 书法专用、楷书字帖、端砚 砚台",
        "适合书法练习与创作。",
    ),
    _taste(
        "zh",
        "汉服",
        "服饰 > 汉服 Hanfu",
        {
            "马面裙": 198,
            "齐胸襦裙": 228,
            "明制长衫": 269,
            "绣花披帛": 59,
            "发簪": 36,
            "绣花布鞋": 79,
            "汉服斗篷": 239,
        },
        "刺绣、织金、日常、古风、秋冬款",
        "云裳记、锦瑟坊、长安令",
        "马面裙 织金、汉服女 日常、发簪 古风、汉服斗篷 秋冬",
        "适合出游、节日与日常穿着。",
    ),
    _taste(
        "zh",
        "火锅",
        "厨房 > 火锅 Hotpot",
        {
            "鸳鸯锅": 118,
            "牛油火锅底料": 26,
            "电磁炉": 189,
            "芝麻蘸料": 12,
            "火锅漏勺": 15,
            "毛肚火锅食材": 49,
            "卡式炉": 99,
        },
        "麻辣、家用、不锈钢、重庆风味、加厚",
        "巴渝里、红汤记、蜀味轩",
        "火锅底料 麻辣、鸳鸯锅 不锈钢、家用电磁炉、火锅蘸料",
        "适合家庭火锅与朋友聚会。",
    ),
    _taste(
        "zh",
        "护肤",
        "美妆 > 护肤 Skincare",
        {
            "保湿面霜": 128,
            "玻尿酸精华": 159,
            "氨基酸洁面": 69,
            "防晒霜": 89,
            "补水面膜": 59,
            "爽肤水": 79,
            "眼霜": 139,
        },
        "敏感肌、清爽、植萃、温和、修护",
        "花颜集、素肌研、沐雪",
        "补水面膜、防晒霜 清爽、敏感肌 面霜、玻尿酸精华",
        "适合敏感肌日常护理。",
    ),
    _taste(
        "zh",
        "钓鱼",
        "户外 > 钓鱼 Fishing",
        {
            "碳素鱼竿": 229,
            "纺车轮": 149,
            "钓鱼椅": 109,
            "路亚假饵": 25,
            "鱼护": 45,
            "夜钓灯": 85,
            "鱼线": 19,
        },
        "超轻、溪流、野钓、便携、加强",
        "江渔客、寒江、垂纶",
        "碳素鱼竿 超轻、路亚假饵、夜钓灯、钓鱼椅 便携",
        "适合野钓、台钓与路亚。",
    ),
)

BY_NAME: dict[str, Taste] = {taste.name: taste for taste in TASTES}

#: (rating, text) by language; {} is the item's title.
REVIEWS: dict[str, tuple[tuple[int, str], ...]] = {
    "en": (
        (5, "Love it. The {} is exactly what I hoped for."),
        (5, "Excellent quality, arrived fast, would buy again."),
        (4, "Good value. The {} does its job well."),
        (3, "It is okay, nothing special for the price."),
        (2, "Disappointed: the {} feels cheap."),
        (1, "Broke after a week. Waste of money."),
    ),
    "zh": (
        (5, "非常喜欢，{}质量很好，还会回购。"),
        (5, "包装精美，物流很快，五星好评！"),
        (4, "性价比不错，{}用着挺顺手。"),
        (3, "一般般吧，没有想象中好。"),
        (2, "有点失望，{}做工粗糙。"),
        (1, "用了一周就坏了，不推荐购买。"),
    ),
}
