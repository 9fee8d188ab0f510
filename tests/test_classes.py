import subprocess
import sys

import numpy as np
import pytest

from biggan.classes import class_choices, resolve_class, search_classes
from biggan.errors import InputError

NAMES = [
    "tench, Tinca tinca",
    "tabby, tabby cat",
    "tiger cat",
    "golden retriever",
    "Labrador retriever",
    "crane",  # the bird
    "crane",  # the machine
    "maillot",
    "maillot, tank suit",
    "wire-haired fox terrier",
    "jack-o'-lantern",
    "teddy, teddy bear",
    "catamaran",
]


def refusal(query, names=NAMES):
    with pytest.raises(InputError) as caught:
        resolve_class(query, names)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("index", [0, 3, len(NAMES) - 1, np.int64(3)])
def test_an_index_is_itself(index):
    assert resolve_class(index, NAMES) == index
    assert type(resolve_class(index, NAMES)) is int


@pytest.mark.parametrize("query", [-1, len(NAMES), "-1", "13", "99) cheeseburger"])
def test_an_index_out_of_range_is_refused_with_the_range(query):
    assert refusal(query).endswith("is out of range: this model's classes are 0 to 12")


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("tabby", 1),
        ("tabby cat", 1),
        ("tabby, tabby cat", 1),
        ("tabby,tabby cat", 1),
        ("TINCA Tinca", 0),
        ("  golden   retriever ", 3),
        ("golden_retriever", 3),
        ("golden-retriever", 3),
        ("wire haired fox terrier", 9),
        ("Wire-Haired_Fox terrier", 9),
        ("jack o' lantern", 10),
        ("teddy", 11),
        ("maillot, tank suit", 8),
    ],
)
def test_a_full_name_or_synonym_wins(query, index):
    assert resolve_class(query, NAMES) == index


def test_an_exact_name_wins_over_classes_that_contain_it():
    assert resolve_class("cat", ["tiger cat", "cat", "cat flap"]) == 1
    assert resolve_class("cat, puss", ["cat, puss, mouser", "cat, puss"]) == 1


@pytest.mark.parametrize(("query", "index"), [("golden", 3), ("fox terrier", 9), ("bear", 11)])
def test_whole_words_of_one_class_are_enough(query, index):
    assert resolve_class(query, NAMES) == index


@pytest.mark.parametrize("query", ["3", " 3 ", "3) golden retriever", "3)", "3) Golden_Retriever"])
def test_a_number_or_a_drop_down_entry_is_an_index(query):
    assert resolve_class(query, NAMES) == 3


def test_every_drop_down_entry_resolves_to_its_own_class():
    assert [resolve_class(choice, NAMES) for choice in class_choices(NAMES)] == list(
        range(len(NAMES))
    )


def test_a_drop_down_entry_of_another_model_is_refused():
    message = refusal("3) great white shark")
    assert "number 3 of this model is 'golden retriever'" in message


def test_a_class_named_by_a_number_wins_over_the_index():
    assert resolve_class("1", ["2", "3", "1"]) == 2
    assert resolve_class(1, ["2", "3", "1"]) == 1
    assert "out of range" in refusal("-1", ["2", "3", "1"])


def test_a_shared_synonym_is_ambiguous():
    assert refusal("Crane") == (
        "class 'Crane' is ambiguous: 5) crane; 6) crane; give the full name or the number"
    )
    assert "7) maillot; 8) maillot, tank suit" in refusal("maillot")


def test_shared_words_are_ambiguous_and_parts_of_words_are_not_words():
    message = refusal("cat", ["tabby cat", "tiger cat", "catamaran"])
    assert "0) tabby cat; 1) tiger cat; give" in message


def test_a_long_list_of_choices_is_cut():
    message = refusal("dog", [f"dog {index}" for index in range(13)])
    assert "9) dog 9; and 3 more; give" in message
    assert "10) dog" not in message


def test_an_unknown_name_is_answered_with_the_nearest():
    message = refusal("golden retreiver")
    assert message.startswith("no class is called 'golden retreiver'; nearest: 3) golden retriever")
    assert message.endswith("`biggan classes` lists them all")
    assert "nearest: 12) catamaran;" in refusal("ama")


def test_a_name_like_no_other_still_says_how_to_list_them():
    assert refusal("zzzz\nzz") == (
        r"no class is called 'zzzz\nzz'; `biggan classes` lists them all"
    )


def test_an_empty_query_and_a_model_without_classes_are_refused():
    assert "empty" in refusal("  ")
    assert "unconditional" in refusal("cat", [])
    assert "unconditional" in refusal(0, [])


def test_an_endless_number_is_no_index():
    assert "no class is called" in refusal("9" * 5000)


def test_search_puts_the_best_first():
    names = ["concatenation", "tiger cat", "cat flap", "tabby, cat", "dog"]
    assert search_classes("CAT", names) == [3, 2, 1, 0]
    assert search_classes("cat_flap", names) == [2]
    assert search_classes("", names) == [0, 1, 2, 3, 4]
    assert search_classes("whale", names) == []


def test_choices_are_the_notebooks():
    assert class_choices(["tench, Tinca tinca", "cheeseburger"]) == [
        "0) tench, Tinca tinca",
        "1) cheeseburger",
    ]


def test_the_module_itself_needs_only_the_standard_library():
    code = (
        "import sys, types; package = types.ModuleType('biggan');"
        "package.__path__ = [sys.argv[1]]; sys.modules['biggan'] = package;"
        "import biggan.classes; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    import biggan.classes

    folder = str(biggan.classes.__file__).removesuffix("classes.py")
    subprocess.run([sys.executable, "-c", code, folder], check=True)
