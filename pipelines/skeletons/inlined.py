"""Merges a subclass into the source of its parent, so that nothing of `super()` remains but what the parent itself says."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from marline.core import RequestError

FIELDS = (ast.Assign, ast.AnnAssign)
Piece = tuple[ast.stmt, str]  # a statement and its text


@dataclass(frozen=True, slots=True)
class Cut:
    """A class or function with the text it is cut from."""

    node: ast.ClassDef | ast.FunctionDef
    text: str

    @property
    def start(self) -> int:
        """The first line, decorators included."""
        return min([self.node.lineno, *(one.lineno for one in self.node.decorator_list)])

    @property
    def head(self) -> str:
        """Decorators and the line or lines up to the colon."""
        return "\n".join(self.text.splitlines()[self.start - 1 : self.node.body[0].lineno - 1])

    @property
    def body(self) -> list[Piece]:
        return list(pieces(self.text, self.node.body, self.node.body[0].lineno - 1))


def merged(file: str, parent: str, child: str) -> str:
    """The parent's class text with the child's docstring, fields and methods in place of or beside its own.

    Both classes have the same name by now. `file` is named in the RequestError for what cannot be written out.
    """
    old, new = _cut(parent), _cut(child)
    assert isinstance(old.node, ast.ClassDef), parent
    members = {_key(node): (node, text) for node, text in old.body}
    for node, text in new.body:
        key = _key(node)
        if isinstance(node, ast.FunctionDef) and key in members:
            was = members[key][0]
            assert isinstance(was, ast.FunctionDef), key
            text = _inlined(f"{file}: {new.node.name}.{key}", Cut(was, parent), Cut(node, child))  # noqa: PLW2901
        members[key] = node, text
    order = sorted(
        members.values(), key=lambda member: 0 if is_docstring(member[0]) else 1 if isinstance(member[0], FIELDS) else 2
    )
    decorators = (new if new.node.decorator_list else old).node.decorator_list
    head = [f"@{ast.unparse(one)}" for one in decorators]
    bases = ", ".join(ast.unparse(one) for one in old.node.bases)
    return "\n".join([*head, f"class {new.node.name}({bases}):", *(text for _, text in order)])


def pieces(text: str, statements: Sequence[ast.stmt], after: int = 0) -> Iterator[Piece]:
    """Statements with their own lines and the comments above them; `after` is the last line that is none of theirs."""
    lines = text.splitlines()
    for node in statements:
        end = node.end_lineno or node.lineno
        yield node, "\n".join(lines[after:end])
        after = end


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _cut(text: str) -> Cut:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.ClassDef | ast.FunctionDef), text
    return Cut(node, text)


def _key(node: ast.stmt) -> str:
    if is_docstring(node):
        return "__doc__"
    if isinstance(node, ast.FunctionDef):
        return node.name
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else node
    return ast.unparse(target)


def _inlined(where: str, old: Cut, new: Cut) -> str:
    """The child's method with the parent's statements in place of `super().method(...)`."""
    found = [(node, call) for node, _ in new.body if (call := _super_call(node, new.node.name))]
    words = [node for node in ast.walk(new.node) if isinstance(node, ast.Name) and node.id == "super"]
    if not words:
        return "\n".join(["", new.head, *(text for _, text in new.body)])
    if len(found) != 1 or len(words) != 1:
        raise RequestError(
            f"{where}: super() cannot be written out flat but as one statement, super().{new.node.name}(...), or returned"
        )
    place, call = found[0]
    _refuse_other_arguments(where, call, old, new)
    if not isinstance(place, ast.Return) and any(isinstance(node, ast.Return) for node in ast.walk(old.node)):
        raise RequestError(f"{where}: the parent's method returns, so nothing can follow it; return what super() does")
    deleted = {ast.unparse(target) for node, _ in new.body if isinstance(node, ast.Delete) for target in node.targets}
    gone = deleted & {target for node, _ in old.body for target in _targets(node)}
    theirs = [(node, text) for node, text in old.body if not is_docstring(node) and not _targets(node) & gone]
    own = [
        (node, text)
        for node, text in new.body
        if node is not place and not (isinstance(node, ast.Delete) and _targets(node) & gone)
    ]
    twice = {ast.dump(node) for node, _ in own} & {ast.dump(node) for node, _ in theirs}
    # What both say stands once: an assignment where the parent has it, a call such as post_init() at the end.
    theirs = [(node, text) for node, text in theirs if ast.dump(node) not in twice or isinstance(node, FIELDS)]
    own = [(node, text) for node, text in own if ast.dump(node) not in twice or not isinstance(node, FIELDS)]
    before = [text for node, text in own if node.lineno < place.lineno]
    after = [text for node, text in own if node.lineno > place.lineno]
    return "\n".join(["", new.head, *before, *(text for _, text in theirs), *after])


def _super_call(node: ast.stmt, method: str) -> ast.Call | None:
    """The call, where a statement is `super().method(...)` or returns it."""
    value = node.value if isinstance(node, ast.Expr | ast.Return) else None
    called = isinstance(value, ast.Call) and ast.unparse(value.func) == f"super().{method}"
    return value if called and isinstance(value, ast.Call) else None


def _targets(node: ast.stmt) -> set[str]:
    """What is assigned or deleted."""
    return {ast.unparse(target) for target in node.targets} if isinstance(node, ast.Assign | ast.Delete) else set()


def _refuse_other_arguments(where: str, call: ast.Call, old: Cut, new: Cut) -> None:
    """The parent's statements keep their meaning only where its parameters are the child's, and all are passed on."""
    theirs, own = _parameters(old), _parameters(new)
    first = [ast.unparse(one) for one in call.args]
    rest = [ast.unparse(one.value) for one in call.keywords]
    same = first == theirs[: len(first)] and all(
        one.arg in {None, value} for one, value in zip(call.keywords, rest, strict=True)
    )
    if not same or {*first, *rest} != set(theirs) or not set(theirs) <= set(own):
        raise RequestError(
            f"{where}: to be written out flat it must take the parent's parameters ({', '.join(theirs)}) and pass all on to "
            "super() under their own names"
        )


def _parameters(method: Cut) -> Sequence[str]:
    assert isinstance(method.node, ast.FunctionDef), method.text
    told = method.node.args
    return [one.arg for one in (*told.args[1:], *told.kwonlyargs, *([told.kwarg] if told.kwarg else []))]
