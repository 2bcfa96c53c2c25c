"""What runs inside Pyodide: the engine's tests, or a digest of every explorable.

    inside.py tests PATH...     pytest over tests; exits with its status
    inside.py digests           one line per explorable: name, frames, sha256 of its rendering

Hypothesis has compiled parts since version 6.160 or so and does not load here. A stand-in takes its
place: tests that draw their data from it are skipped and say so, all others in the same files run.
"""

from __future__ import annotations

import hashlib
import json
import sys
import types
from typing import Any

WHY = "hypothesis has compiled parts that Pyodide lacks"


def hypothesis_stand_in() -> None:
    """Let ``import hypothesis`` succeed and skip what uses it."""
    import pytest

    def given(*_: Any, **__: Any) -> Any:
        return pytest.mark.skip(reason=WHY)

    class Anything:
        """Whatever is asked of it, it is."""

        def __call__(self, *args: Any, **_: Any) -> Any:
            one = args[0] if len(args) == 1 else None
            named = isinstance(one, (types.FunctionType, type)) and one.__name__ != "<lambda>"
            return one if named else self

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return self

        def __iter__(self) -> Any:
            return iter(())

        def __or__(self, _: Any) -> Any:
            return self

        def __len__(self) -> int:
            return 0

    class RuleBasedStateMachine:
        """Its test case is one skipped test."""

        class TestCase:
            settings: Any = None

            def test_state_machine(self) -> None:
                pytest.skip(WHY)

    anything = Anything()
    for name in ("hypothesis", "hypothesis.strategies", "hypothesis.stateful"):
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: (_ for _ in ()).throw(AttributeError(attribute)) if attribute.startswith("__") else anything  # type: ignore[method-assign]
        sys.modules[name] = module
    top: Any = sys.modules["hypothesis"]
    top.given = given
    top.strategies = sys.modules["hypothesis.strategies"]
    top.stateful = sys.modules["hypothesis.stateful"]
    top.strategies.composite = lambda fn: anything
    top.stateful.RuleBasedStateMachine = RuleBasedStateMachine
    top.stateful.run_state_machine_as_test = lambda *_, **__: pytest.skip(WHY)


def run_tests(paths: list[str]) -> int:
    """Run pytest without a configuration file, so that mmcore is the wheel's."""
    import pytest

    import mmcore

    print(f"Python {sys.version.split()[0]} on {sys.platform}, engine {mmcore.__file__}")
    assert mmcore.__file__ and mmcore.__file__.startswith("/engine/")
    hypothesis_stand_in()
    markers = ["slow", "book", "browser", "pyodide"]
    with open("/pytest.ini", "w") as ini:
        ini.write(
            "[pytest]\nmarkers =\n" + "".join(f"    {m}: see pyproject.toml\n" for m in markers)
        )
    options = ["-q", "-c", "/pytest.ini", "--rootdir=/project", "--import-mode=importlib"]
    options += ["-p", "no:cacheprovider", "-p", "no:faulthandler", "--durations=5"]
    options += ["-m", "not book and not browser and not pyodide and not slow"]
    return int(pytest.main([*options, *paths]))


def digests() -> int:
    """Render every explorable at its defaults."""
    import importlib
    import pkgutil

    from mmcore.viz import figures
    from mmcore.viz.explorable import names, render

    for module in pkgutil.iter_modules(figures.__path__):
        importlib.import_module(f"mmcore.viz.figures.{module.name}")
    for name in names():
        rendering = render(name)
        text = json.dumps(rendering.to_dict(), sort_keys=True)
        print(name, len(rendering.frames), hashlib.sha256(text.encode()).hexdigest())
    return 0


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    sys.exit(run_tests(rest) if command == "tests" else digests())
