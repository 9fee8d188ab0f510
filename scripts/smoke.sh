#!/usr/bin/env bash
# Build the sdist, and the wheel from it; install the wheel into an empty environment outside the
# tree, with nothing but what it requires; and use it.
#
#     scripts/smoke.sh PYTHON       # a Python that has the package `build`
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

"$python" -m venv "$folder/venv"
bin=$folder/venv/bin
"$bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$wheel"
cd "$folder"
"$bin/python" - <<'END'
import sys
from pathlib import Path

import biggan

package = Path(biggan.__file__).parent
assert package.is_relative_to(sys.prefix), f"{package} is not the installed package"
assert (package / "py.typed").is_file(), "py.typed is missing"
END
"$bin/biggan" --version --verbose
"$bin/biggan" demo --help >help.txt
"$bin/biggan" sample --num 1 --out pictures
test "$(ls pictures | wc -l)" = 1
