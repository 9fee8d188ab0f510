import hashlib
import os
import random
import re
import runpy
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from biggan.classes import (
    class_choices,
    default_class_names,
    imagenet_classes,
    is_imagenet,
    resolve_class,
    search_classes,
    wordnet_ids,
)
from biggan.errors import InputError

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_imagenet_classes.py"

IMAGENET = imagenet_classes()
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
    ("index", "queries"),
    [
        (0, ["TINCA Tinca"]),
        (1, ["tabby", "tabby cat", "tabby, tabby cat", "tabby,tabby cat"]),
        (3, ["  golden   retriever ", "golden_retriever", "golden-retriever", "golden"]),
        (3, ["3", " 3 ", "3) golden retriever", "3)", "3) Golden_Retriever"]),
        (8, ["maillot, tank suit"]),
        (9, ["wire haired fox terrier", "Wire-Haired_Fox terrier", "fox terrier"]),
        (10, ["jack o' lantern"]),
        (11, ["teddy", "bear"]),
    ],
)
def test_names_synonyms_words_numbers_and_entries_are_classes(index, queries):
    for query in queries:
        assert resolve_class(query, NAMES) == index, query


def test_an_exact_name_wins_over_classes_that_contain_it():
    assert resolve_class("cat", ["tiger cat", "cat", "cat flap"]) == 1
    assert resolve_class("cat, puss", ["cat, puss, mouser", "cat, puss"]) == 1


def test_choices_are_the_notebooks_and_each_means_its_class():
    choices = class_choices(NAMES)
    assert choices[0] == "0) tench, Tinca tinca"
    assert [resolve_class(choice, NAMES) for choice in choices] == list(range(len(NAMES)))


def test_a_drop_down_entry_of_another_model_is_refused():
    message = refusal("3) great white shark")
    assert "number 3 of this model is 'golden retriever'" in message


def test_a_class_named_by_a_number_wins_over_the_index():
    assert resolve_class("1", ["2", "3", "1"]) == 2
    assert resolve_class(1, ["2", "3", "1"]) == 1
    assert "out of range" in refusal("-1", ["2", "3", "1"])


@pytest.mark.parametrize(
    ("query", "names", "listed"),
    [
        ("Crane", NAMES, "5) crane; 6) crane; give the number or the whole entry"),
        ("maillot", NAMES, "7) maillot; 8) maillot, tank suit; give"),
        ("harp", ["harmonica, harp", "harp"], "0) harmonica, harp; 1) harp; give"),
        ("tub", ["tub, vat", "bathtub, tub"], "0) tub, vat; 1) bathtub, tub; give"),
        ("cat", ["tabby cat", "tiger cat", "catamaran"], "0) tabby cat; 1) tiger cat; give"),
    ],
)
def test_what_several_classes_are_called_is_ambiguous(query, names, listed):
    assert f"class {query!r} is ambiguous: {listed}" in refusal(query, names)
    assert resolve_class("1) harp", ["harmonica, harp", "harp"]) == 1


def test_a_long_list_of_choices_is_cut():
    message = refusal("dog", [f"dog {index}" for index in range(13)])
    assert "9) dog 9; and 3 more; give" in message
    assert "10) dog" not in message


def test_an_unknown_name_is_answered_with_the_nearest():
    message = refusal("golden retreiver")
    assert message.startswith("no class is named 'golden retreiver'; nearest: 3) golden retriever")
    assert message.endswith("; `biggan classes --model MODEL` or gan.class_names lists them all")
    assert "nearest: 12) catamaran;" in refusal("ama")
    assert "nearest: 12) catamaran;" in refusal("catamran")
    assert refusal("zzzz\nzz").startswith(r"no class is named 'zzzz\nzz'; `biggan classes --model ")
    assert "no class is named" in refusal("9" * 5000)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_spellings_of_an_accent_are_the_same_name(form):
    names = [unicodedata.normalize("NFD", name) for name in ("tea", "caf\u00e9 noir", "\uac15")]
    assert resolve_class(unicodedata.normalize(form, "CAF\u00c9 noir"), names) == 1
    assert resolve_class(unicodedata.normalize(form, "\uac15"), names) == 2
    assert search_classes(unicodedata.normalize(form, "caf\u00e9"), names) == [1]


def test_an_empty_query_and_a_model_without_classes_are_refused():
    assert "empty" in refusal("  ")
    assert "unconditional" in refusal("cat", [])
    assert "unconditional" in refusal(0, [])


def test_search_puts_the_best_first():
    names = ["concatenation", "tiger cat", "cat flap", "tabby, cat", "dog"]
    assert search_classes("CAT", names) == [3, 2, 1, 0]
    assert search_classes("cat_flap", names) == [2]
    assert search_classes("", names) == [0, 1, 2, 3, 4]
    assert search_classes("3", names) == search_classes("3)", names) == [3]
    assert search_classes("3) tabby, cat", names) == [3]
    assert search_classes("5", names) == []
    assert search_classes("1", ["11", "one", "0 or 1", "1"]) == [3, 1, 2, 0]
    assert search_classes("whale", names) == []
    # Whole words come before parts: "catamount" and "catesbeiana" are no cats.
    found = [IMAGENET[index] for index in search_classes("cat", IMAGENET)]
    assert found.index("tabby, tabby cat") < found.index("lynx, catamount")
    assert found.index("Egyptian cat") < found.index("bullfrog, Rana catesbeiana")


def test_search_takes_a_query_that_no_name_holds_for_a_misspelling():
    names = ["timber wolf", "golf ball", "golfcart, golf cart", "ball"]
    assert search_classes("gofl cart", names) == [2]
    assert search_classes("golfkart", names) == [2]
    assert search_classes("glof", names) == [1, 2]
    assert search_classes("golf", names) == [1, 2]  # "wolf" is as similar, but this is held
    assert search_classes("wulf", names) == [0]
    assert search_classes("football", names) == []  # "ball" is held by it, not the other way round


def test_search_lists_the_most_similar_first_and_nothing_far_behind_it():
    names = ["lavender", "calendars", "calendar"]
    assert search_classes("calender", names) == [2, 1]
    assert search_classes("calender", names[:1]) == [0]


def test_the_module_itself_needs_only_the_standard_library():
    code = (
        "import sys, types; package = types.ModuleType('biggan');"
        "package.__path__ = [sys.argv[1]]; sys.modules['biggan'] = package;"
        "import biggan.classes; assert len(biggan.classes.imagenet_classes()) == 1000;"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    import biggan.classes

    folder = str(biggan.classes.__file__).removesuffix("classes.py")
    subprocess.run([sys.executable, "-c", code, folder], check=True)


def test_imagenets_table_is_the_one_that_the_script_made():
    table = "".join(map("{}\t{}\n".format, wordnet_ids(), IMAGENET))
    digest = "c98cf8e050b2f67f824762ebdb5bcf683adc7955382b9ff8b1c0f49548bb449b"
    assert hashlib.sha256(table.encode()).hexdigest() == digest
    assert len(IMAGENET) == len(wordnet_ids()) == 1000
    assert list(wordnet_ids()) == sorted(set(wordnet_ids()))


def test_imagenets_names_are_clean_text():
    for name in IMAGENET:
        synonyms = name.split(", ")
        assert all(re.fullmatch(r"[A-Za-z'.-]+( [A-Za-z'.-]+)*", text) for text in synonyms), name
        assert len(set(synonyms)) == len(synonyms), name


def test_every_imagenet_class_has_its_name_or_is_listed_with_those_that_share_it():
    shared = {}
    for index, name in enumerate(IMAGENET):
        try:
            assert resolve_class(name, IMAGENET) == index
        except InputError as error:
            shared[index] = str(error)
    assert list(shared) == [86, 134, 474, 517, 594, 638, 657]  # crane, cardigan, crane, maillot
    assert all(f" {index}) {IMAGENET[index]};" in message for index, message in shared.items())


@pytest.mark.parametrize("queries", [range(1000), class_choices(IMAGENET), wordnet_ids()])
def test_every_imagenet_class_has_its_index_menu_entry_and_wordnet_id(queries):
    assert [resolve_class(query, IMAGENET) for query in queries] == list(range(1000))


def test_names_that_are_clear_among_imagenets():
    for query, index in {
        "golden retriever": 207,
        "golden_retriever": 207,
        "N02099601": 207,
        "594) harp": 594,
        "maillot, tank suit": 639,
        "cheeseburger": 933,
    }.items():
        assert resolve_class(query, IMAGENET) == index, query


@pytest.mark.parametrize(
    ("query", "listed"),
    [
        ("crane", "134) crane; 517) crane"),
        ("maillot", "638) maillot; 639) maillot, tank suit"),
        ("Cardigan", "264) Cardigan, Cardigan Welsh corgi; 474) cardigan"),
        ("cat", "281) tabby, tabby cat; 282) tiger cat; 283) Persian cat"),
    ],
)
def test_names_that_are_not_clear_among_imagenets_are_listed(query, listed):
    assert f"{query!r} is ambiguous: {listed}; " in refusal(query, IMAGENET)


@pytest.mark.parametrize("query", ["n02099602", "n0209960", "golden retreiver"])
def test_neither_a_wrong_wordnet_id_nor_a_misspelling_is_resolved(query):
    assert "no class is named" in refusal(query, IMAGENET)


def test_wordnet_ids_are_imagenets_alone():
    assert is_imagenet(list(IMAGENET))
    others = IMAGENET[::-1], IMAGENET[:-1]
    assert not any(map(is_imagenet, others))
    for names in others:
        assert "no class is named" in refusal("n02099601", names)
        assert search_classes("n02099601", names) == []


def test_search_finds_what_was_meant_among_imagenets():
    for query, index in {
        "golden retreiver": 207,
        "chesburger": 933,
        "cheese burger": 933,
        "cheeseburgers": 933,
        "sibirian husky": 250,
        "dalmation": 251,
        "goldfsh": 1,
        "tiger cta": 282,
    }.items():
        assert search_classes(query, IMAGENET) == [index], query


def test_search_finds_imagenets_names_with_a_letter_lost():
    rng = random.Random(0)
    for index in rng.sample(range(1000), 30):
        name = max(IMAGENET[index].split(", "), key=len)
        lost = rng.randrange(1, len(name) - 1)
        query = name[:lost] + name[lost + 1 :]
        if len(query) > 4:  # shorter ones are parts of other names ("acon" of "beacon")
            assert index in search_classes(query, IMAGENET), query


def test_search_finds_imagenets_wordnet_ids():
    assert search_classes("n02099601", IMAGENET) == [207]
    assert search_classes("N0209960", IMAGENET) == [207]
    assert search_classes("n02099", IMAGENET) == [205, 206, 207, 208, 209]
    assert search_classes("n02099602", IMAGENET) == []


def test_classes_without_names_are_numbered_unless_they_are_a_thousand():
    assert default_class_names(0) == ()
    assert default_class_names(3) == ("class 0", "class 1", "class 2")
    assert default_class_names(1000) == IMAGENET
    for query in (2, "2", "class 2"):
        assert resolve_class(query, default_class_names(30)) == 2


def fake_wheel(folder, synsets, lemmas):
    path = folder / "timm.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("timm/data/_info/imagenet_synsets.txt", synsets)
        archive.writestr("timm/data/_info/imagenet_synset_to_lemma.txt", lemmas)
    return path


def make_table(wheel):
    return runpy.run_path(str(SCRIPT))["make_table"](wheel)


def test_the_script_orders_and_cleans(tmp_path):
    lemmas = "n1\then\nn2\tunused\nn3\ttench ,Tinca  tinca \n"
    assert make_table(fake_wheel(tmp_path, "n3\nn1\n", lemmas)) == (
        "n3\ttench, Tinca tinca\nn1\then\n"
    )


@pytest.mark.parametrize(
    ("synsets", "lemmas", "message"),
    [
        ("n1\nn1\n", "n1\then\n", "an id twice"),
        ("n1\nn2\n", "n1\then\n", "no name"),
        ("n1\n", "n1\then, , biddy\n", "an empty synonym"),
    ],
)
def test_the_script_refuses_a_wheel_that_it_does_not_understand(tmp_path, synsets, lemmas, message):
    with pytest.raises(ValueError, match=message):
        make_table(fake_wheel(tmp_path, synsets, lemmas))


@pytest.mark.skipif("TIMM_WHEEL" not in os.environ, reason="TIMM_WHEEL is not the path of a wheel")
def test_the_script_makes_the_table_again():
    committed = SCRIPT.parents[1] / "src" / "biggan" / "imagenet_classes.tsv"
    assert make_table(Path(os.environ["TIMM_WHEEL"])).encode() == committed.read_bytes()
