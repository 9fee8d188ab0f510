#!/usr/bin/env bash
# Build the sdist, and the wheel from it; install the wheel into an empty environment outside the
# tree, with nothing but what it requires; and use it. This with the versions of constraints.txt,
# and with the lowest.
#
#     scripts/smoke.sh PYTHON       # a Python that has the packages `build` and `mypy`
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH

# A copy: setuptools would also pack what an older src/biggan.egg-info lists.
mkdir "$folder/tree"
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory "$folder/tree"
"$python" -m build --outdir "$folder" "$folder/tree" >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
wheel=$(echo "$folder"/biggan-*.whl)
git ls-files src/biggan | sed 's|^src/||' | sort >"$folder/tracked"
"$python" -m zipfile -l "$wheel" | awk '/^biggan\// {print $1}' | sort >"$folder/packed"
diff "$folder/tracked" "$folder/packed" || { echo "the wheel does not hold the files of src/biggan"; exit 1; }
cp constraints.txt "$folder/pinned.txt"
{ grep '^torch==' constraints.txt; "$python" scripts/lower_bounds.py; } >"$folder/lowest.txt"
cd "$folder"
wc --bytes biggan-*

cat >use.py <<'END'
import biggan

gan: biggan.Gan = biggan.load()
gan.sample("red apple", num="10")  # type: ignore[arg-type]
END
for versions in pinned lowest; do
    "$python" -m venv --clear venv
    bin=$folder/venv/bin
    pip=("$bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --constraint "$versions.txt")
    "${pip[@]}" "$wheel"
    "$bin/python" -c 'import sys, biggan; assert biggan.__file__.startswith(sys.prefix), biggan.__file__'
    "$bin/biggan" --version --verbose
    "$bin/biggan" demo --help >help.txt
    "$bin/biggan" sample --num 1 --out "pictures-$versions"
    test "$(ls "pictures-$versions" | wc -l)" = 1
    if [ "$versions" = pinned ]; then
        # Fails where biggan has no types: then nothing needs to be ignored.
        "$python" -m mypy --strict --python-executable "$bin/python" use.py
    fi
    "${pip[@]}" "$wheel[export]"
    "$bin/biggan" export --format web --runtime cdn "site-$versions"
    test -s "site-$versions/index.html" -a -s "site-$versions/page.js" -a -s "site-$versions/model.json"
done
