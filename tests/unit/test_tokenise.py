from __future__ import annotations

import pytest

from models.tokenise import head, load_dictionary, needs_dictionary, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Running shoes for the trail", ["run", "shoe", "trail"]),
        ("Wi-Fi", ["wi", "fi", "wifi"]),
        ("Brother TN-2110/B", ["brother", "tn", "2110", "tn2110", "b"]),
        ("ＵＳＢ　Ｃ", ["usb", "c"]),
        ("cafés", ["café"]),
        ("The Who", ["who"]),
        ("of the", ["of", "the"]),
        ("  …!?", []),
        ("", []),
    ],
)
def test_english_is_stemmed_and_codes_are_found_joined_and_apart(text: str, found: list[str]):
    assert words(text) == found


def test_chinese_is_cut_into_words_and_the_words_in_them():
    assert words("小米的蓝牙耳机") == ["小米", "蓝牙", "耳机"]
    assert words("北京大学") == ["北京", "大学", "北京大学"]


def test_languages_mix_in_one_text():
    assert words("iPhone11手机 cases") == ["iphone11", "手机", "case"]


def test_the_dictionary_is_needed_for_chinese_alone_and_loaded_once():
    assert not needs_dictionary("bluetooth speaker")
    load_dictionary()
    assert not needs_dictionary("蓝牙耳机")


@pytest.mark.parametrize(
    ("title", "thing"),
    [
        ("SP17 Classic Laptop Sleeve", "sleev"),
        ("L1906 Flat Panel Monitor 19", "monitor"),
        ("Mascara, very black, 8 ml", "mascara"),
        ("FireWire adapter for laptops", "adapt"),
        ("For iPhone", "iphon"),
        ("DCP-7030", ""),
        ("小米手机壳（黑色）", "壳"),
        ("", ""),
    ],
)
def test_a_title_names_its_thing_last(title: str, thing: str) -> None:
    assert head(title) == thing
