import hashlib
import sys
from base64 import urlsafe_b64encode

import pytest

from router.cli.selfcheck import PACKAGES, ForeignPackageError, check_packages


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with packages of the three names, first on the path, recorded as pip does."""
    record = tmp_path / "pointsman-1.0.dist-info/RECORD"
    record.parent.mkdir()
    lines = ["router/cli.py,sha256=x,1", "pointsman-1.0.dist-info/RECORD,,"]
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'"""{name}"""\n')
        digest = hashlib.sha256(f'"""{name}"""\n'.encode()).digest()
        text = urlsafe_b64encode(digest).rstrip(b"=").decode()
        lines.append(f"{name}/__init__.py,sha256={text},12")
    record.write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [m for m in sys.modules if m.partition(".")[0] in PACKAGES]:
        monkeypatch.delitem(sys.modules, module)
    return tmp_path


def test_the_packages_of_this_checkout_are_its_own():
    check_packages()


def test_packages_that_are_as_installed_pass(home):
    check_packages(home)


def test_a_shadowed_package_is_named_with_both_places(home, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    (other / "loadgen").mkdir()
    (other / "loadgen/__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(other))
    with pytest.raises(ForeignPackageError) as caught:
        check_packages(home)
    assert f"'loadgen' is found in {other}/loadgen and not in {home}/loadgen" in str(caught.value)


def test_a_missing_package_is_named(home):
    (home / "policies/__init__.py").unlink()
    (home / "policies").rmdir()
    with pytest.raises(ForeignPackageError, match="'policies' is found in "):
        check_packages(home)


def test_an_overwritten_package_is_named(home):
    (home / "router/__init__.py").write_text("# another distribution's\n")
    with pytest.raises(ForeignPackageError, match=r"'router' in .* was overwritten"):
        check_packages(home)


def test_an_editable_installation_has_nothing_to_compare(home):
    (home / "router/__init__.py").write_text("# edited\n")
    (home / "pointsman-1.0.dist-info/RECORD").write_text("")
    check_packages(home)
