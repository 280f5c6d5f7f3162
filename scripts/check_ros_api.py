"""Checks that all calls of ROS 2's Python packages exist in each distribution.

    python scripts/check_ros_api.py                        # make check runs it
    python scripts/check_ros_api.py make jazzy FOLDER...   # makes scripts/ros_api/jazzy.txt anew

A list, scripts/ros_api/DISTRIBUTION.txt, holds the names and signatures of a distribution's packages as type
stubs. mypy checks the package, the launch files and the tests against them: names, attributes, the number and the
names of arguments. It does not see what a value of type Any is asked for, and takes `**kwargs` for any name.

FOLDERS hold the packages' sources: checkouts of a distribution's branches, or unpacked wheels (rclpy, launch,
launch_ros, geometry2, common_interfaces, rcl_interfaces, ament_index, vision_msgs, ffmpeg_image_transport_msgs).
Without that of a package, its calls are not checked, and `make` says so.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "scripts" / "ros_api"
#: Packages that are written in Python; those of messages are found by their definitions.
PYTHON = ("rclpy", "launch", "launch_ros", "tf2_ros", "sensor_msgs_py", "ament_index_python")
#: Errors of mypy which say that something does not exist, or is called otherwise.
CODES = {"attr-defined", "call-arg", "call-overload", "import-not-found", "name-defined"}
_MARK = "#: "  # precedes a file's path in a list
_SECTIONS = {"msg": ("",), "srv": ("_Request", "_Response")}
_PRIMITIVE = re.compile(r"(bool|byte|char|float\d+|u?int\d+|w?string)\b")
_MODULE = re.compile(r"^\s*(?:from|import) ([a-z]\w*)", re.MULTILINE)


def check(sources: Iterable[Path], lists: Iterable[Path]) -> list[str]:
    """One line for each call that a distribution does not have.

    Args:
        sources: Python files, in ``ROOT``.
        lists: lists of distributions.
    """
    return [line for path in lists for line in _check(list(sources), path)]


def sources_of(root: Path = ROOT) -> list[Path]:
    """All Python files that import a ROS package."""
    folders = ("sap_ros", "launch", "test")
    files = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    return [path for path in files if _ros_packages(path.read_text())]


def _ros_packages(text: str) -> set[str]:
    return {
        name
        for name in _MODULE.findall(text)
        if name in PYTHON or name.endswith(("_msgs", "_interfaces", "_srvs"))
    }


def _check(sources: list[Path], path: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as temporary:
        stubs, copies = Path(temporary, "stubs"), Path(temporary, "copies")
        _unpack(path, stubs)
        copies.mkdir()
        # mypy takes only files with names of modules.
        named: dict[str, Path] = {}
        for source in sources:
            file = source
            if "." in source.stem or not source.is_relative_to(ROOT):
                file = copies / f"{source.stem.replace('.', '_')}_.py"
                shutil.copy(source, file)
            named[str(file)] = source
        # numpy and the like are of no interest here; what is not found is Any. A cache would report errors
        # under the paths of an earlier run.
        config = Path(temporary, "mypy.ini")
        config.write_text(
            f"[mypy]\nmypy_path = {stubs}:{copies}:{ROOT}\nno_site_packages = True\ncheck_untyped_defs = True\n"
            "explicit_package_bases = True\nnamespace_packages = True\nfollow_imports = silent\n"
            f"python_version = 3.10\ncache_dir = {os.devnull}\n"
        )
        command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--output", "json"]
        done = subprocess.run(
            [*command, *named], cwd=ROOT, capture_output=True, text=True, check=False
        )
        known = {folder.name for folder in stubs.iterdir()}
        if done.returncode not in (0, 1):
            raise SystemExit(f"check_ros_api: mypy: {done.stdout}{done.stderr}")
        for line in done.stdout.splitlines():
            error = json.loads(line)
            file = named.get(str((ROOT / error["file"]).resolve()))
            iterated = "(not iterable)" in error["message"]  # of arrays, which are unknown here
            if error["code"] not in CODES or file is None or iterated:
                continue
            missing = re.search(r'module named "(\w+)', error["message"])
            if missing and missing[1] not in known:
                continue
            shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
            yield f"{shown}:{error['line']}: {path.stem}: {error['message']}"


def _unpack(path: Path, folder: Path) -> None:
    for part in path.read_text().split(f"\n{_MARK}")[1:]:
        name, _, text = part.partition("\n")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for parent in file.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.pyi").touch()


def make(distribution: str, folders: list[Path]) -> None:
    """Makes a distribution's list from its sources."""
    used = set().union(*(_ros_packages(path.read_text()) for path in sources_of()))
    with tempfile.TemporaryDirectory() as temporary:
        stubs, versions = Path(temporary), set()
        for package in PYTHON:
            source = _python_package(package, folders)
            if source is None:
                print(f"{distribution}: {package} is not in the folders; it is not checked")
                continue
            versions.add(f"{package} {_version(source)}")
            _add_python(source, stubs)
        _add_tf2_py(stubs, folders)
        _add_messages(stubs, folders, versions)
        texts = {str(path.relative_to(stubs)): path.read_text() for path in stubs.rglob("*.pyi")}
    kept = _reduced(texts, [path.read_text() for path in sources_of()])
    for name in sorted(used - {path.split("/")[0] for path in kept} - set(PYTHON)):
        print(f"{distribution}: {name} is not in the folders; it is not checked")
    head = (
        f"# Names and signatures of ROS 2, by scripts/check_ros_api.py make {distribution}, from\n"
    )
    head += "".join(f"#   {version}\n" for version in sorted(versions))
    body = "".join(f"\n{_MARK}{name}\n{text}" for name, text in sorted(kept.items()))
    part = LISTS / f"{distribution}.part"
    part.write_text(head + body)
    part.rename(LISTS / f"{distribution}.txt")


def _python_package(name: str, folders: list[Path]) -> Path | None:
    found = (path.parent for folder in folders for path in folder.rglob(f"{name}/__init__.py"))
    return next(iter(sorted(found, key=lambda path: len(path.parts))), None)


def _version(source: Path) -> str:
    """From the package.xml above, or from the name of a wheel's folder."""
    for folder in source.parents:
        if (folder / "package.xml").exists():
            return re.findall(r"<version>(.*?)<", (folder / "package.xml").read_text())[0]
        if match := re.match(r"ros_\w+-([\d.]+)-", folder.name):
            return match[1]
    return "unknown"


def _add_python(source: Path, stubs: Path) -> None:
    """Stubs of a Python package, by stubgen, and the imports that it leaves out though others may use them."""
    command = [str(Path(sys.executable).with_name("stubgen")), "--parse-only", "--include-private"]
    command += ["--quiet", "--output", str(stubs), str(source)]
    subprocess.run(command, check=True, cwd=stubs)
    for path in source.rglob("*.py"):
        stub = stubs / path.relative_to(source.parent).with_suffix(".pyi")
        if not stub.exists():
            continue
        text = stub.read_text()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (
                node.level or node.module.split(".")[0] == source.name
            ):
                for alias in node.names:
                    bound = alias.asname or alias.name
                    if bound != "*" and not re.search(rf"\b{bound}\b", text):
                        alias.asname = bound
                        single = ast.ImportFrom(node.module, [alias], node.level)
                        text = f"{ast.unparse(single)}\n{text}"
        stub.write_text(text)


def _add_tf2_py(stubs: Path, folders: list[Path]) -> None:
    """tf2_ros exports tf2_py, which is written in C: its exceptions are named in the source."""
    text = "".join(p.read_text() for f in folders for p in f.rglob("tf2_py/src/*.cpp"))
    names = sorted(set(re.findall(r'"tf2\.(\w+Exception)"', text)))
    lines = ["from typing import Any", "class BufferCore(Any): ..."]
    lines += ["class TransformException(Exception): ..."]
    lines += [f"class {n}(TransformException): ..." for n in names if n != "TransformException"]
    (stubs / "tf2_py").mkdir()
    (stubs / "tf2_py" / "__init__.pyi").write_text("\n".join(lines))


def _add_messages(stubs: Path, folders: list[Path], versions: set[str]) -> None:
    """Stubs of all messages and services that are defined in the folders."""
    for folder in folders:
        for path in folder.rglob("*.[ms][sr][gv]"):
            kind = path.parent.name
            if kind not in _SECTIONS:
                continue
            package = path.parents[1].name
            module = stubs / package / kind / "__init__.pyi"
            module.parent.mkdir(parents=True, exist_ok=True)
            versions.add(f"{package} {_version(path)}")
            with module.open("a") as file:
                file.write(_interface(package, kind, path))


def _interface(package: str, kind: str, path: Path) -> str:
    """A message's or service's class, from its definition."""
    classes = []
    parts = re.split(r"^---.*$", path.read_text(), flags=re.MULTILINE)
    names = [path.stem + section for section in _SECTIONS[kind]]
    lines = ["import typing"]
    for name, part in zip(names, parts, strict=True):
        fields: dict[str, str] = {}
        constants = []
        for line in re.sub(r"#.*", "", part).splitlines():
            words = line.split()
            if len(words) < 2:
                continue
            if "=" in line and "<=" not in words[0] and re.match(r"\w+\s*=", " ".join(words[1:])):
                constants.append(words[1].split("=")[0])
                continue
            typ, plain = words[0], "[" not in words[0]
            other = re.match(r"(?:(\w+)/)?(\w+)", typ)
            assert other is not None
            if not plain or _PRIMITIVE.match(typ):
                fields[words[1]] = "typing.Any"
            else:
                of = other[1] or ("std_msgs" if other[2] == "Header" else package)
                fields[words[1]] = f"{of}.msg.{other[2]}"
                lines.append(f"import {of}.msg")
        text = f"class {name}:\n"
        text += "".join(f"    {constant}: typing.ClassVar[typing.Any]\n" for constant in constants)
        text += "".join(f"    {field}: {typ}\n" for field, typ in fields.items())
        keywords = "".join(f", {field}: typing.Any = ..." for field in fields)
        text += f"    def __init__(self{', *' if keywords else ''}{keywords}) -> None: ...\n"
        classes.append(text)
    if kind == "srv":
        request, response = (name + section for name in [path.stem] for section in _SECTIONS[kind])
        classes.append(f"class {path.stem}:\n    Request = {request}\n    Response = {response}\n")
    return "\n".join(dict.fromkeys(lines)) + "\n" + "".join(classes)


def _reduced(texts: dict[str, str], sources: list[str]) -> dict[str, str]:
    """What can be reached of the stubs: the modules that the sources import, and what these refer to.

    The types of arguments are left out: a wrong type is none of this program's errors.
    """
    modules = {}
    for path, text in texts.items():
        name = path.removesuffix(".pyi").removesuffix("/__init__").replace("/", ".")
        modules[name] = _Module(
            ast.parse(text), name if path.endswith("__init__.pyi") else name.rpartition(".")[0]
        )
    waiting: list[tuple[str, str]] = []
    for text in sources:
        for module, name in _imported(ast.parse(text), ""):
            waiting.append((module, name))
            whole = f"{module}.{name}" if f"{module}.{name}" in modules else module
            if whole in modules:
                # Of what is imported again, only what is used; of a module imported as a whole, all.
                waiting += [
                    (whole, known)
                    for known in (modules[whole].defined if name else modules[whole].names)
                ]
                waiting += (
                    []
                    if name
                    else [
                        (star, n)
                        for star in modules[whole].stars
                        if star in modules
                        for n in modules[star].defined
                    ]
                )
    while waiting:
        module, name = waiting.pop()
        if module not in modules:
            continue
        found = modules[module]
        if name in found.kept:
            continue
        found.kept.add(name)
        waiting += found.needs(name)
        waiting += [(star, name) for star in found.stars]
        waiting.append((f"{module}.{name}", ""))  # name may be a module
    return {
        path: text
        for path in texts
        if (
            text := modules[
                path.removesuffix(".pyi").removesuffix("/__init__").replace("/", ".")
            ].text()
        )
    }


class _Module:
    """A stub, with the names in it that are kept."""

    def __init__(self, tree: ast.Module, package: str) -> None:
        self.package = package
        self.kept: set[str] = set()
        self.names: dict[str, list[ast.stmt]] = {}
        self.imports: set[str] = set()
        self.stars: list[str] = []
        for node in tree.body:
            self._take(node)

    def _take(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias, (module, name) in zip(
                node.names, _imported(node, self.package), strict=True
            ):
                if name == "*":
                    self.stars.append(module)
                    continue
                bound = alias.asname or alias.name
                self.imports.add(bound.split(".")[0])
                single = type(node)(**{**vars(node), "names": [alias]})
                self.names.setdefault(bound.split(".")[0], []).append(single)
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            self.names.setdefault(node.name, []).append(_Shorter().visit(node))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            self.names.setdefault(ast.unparse(target), []).append(node)

    @property
    def defined(self) -> list[str]:
        """The names that are not imported."""
        return [name for name in self.names if name not in self.imports]

    def needs(self, name: str) -> Iterator[tuple[str, str]]:
        """The names of other modules that a name here refers to; those of this module are kept at once."""
        for node in self.names.get(name, []):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield from _imported(node, self.package)
                continue
            for part in ast.walk(node):
                if isinstance(part, ast.Attribute):
                    module, _, attribute = ast.unparse(part).rpartition(".")
                    yield module, attribute
                if (
                    isinstance(part, ast.Name)
                    and part.id in self.names
                    and part.id not in self.kept
                ):
                    self.kept.add(part.id)
                    yield from self.needs(part.id)

    def text(self) -> str:
        """The stub of what is kept."""
        nodes = [node for name, found in self.names.items() if name in self.kept for node in found]
        stars = [f"from {module} import *" for module in self.stars if self.kept]
        text = "".join(f"{line}\n" for line in [*stars, *map(ast.unparse, nodes)])
        return re.sub(r"\n{2,}", "\n", re.sub(r":\n +\.\.\.\n", ": ...\n", text))


class _Shorter(ast.NodeTransformer):
    """Leaves out the types of arguments, and members whose names are mangled."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if re.match(r"__\w+(?<!__)$", node.name):
            return None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        mangled = isinstance(node.target, ast.Name) and re.match(r"__\w+(?<!__)$", node.target.id)
        return None if mangled else node


def _imported(tree: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """Module and name of each import; without a name if it is a module's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                outer = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*outer, *([base] if base else [])])
            yield from ((base, alias.name) for alias in node.names)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["make"] and len(arguments) > 2:
        make(arguments[1], [Path(folder).resolve() for folder in arguments[2:]])
        return
    if arguments:
        raise SystemExit(__doc__)
    wrong = check(sources_of(), sorted(LISTS.glob("*.txt")))
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
