"""Help, completion, and the forms of the output."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import pyro_mivae as mi
from pyro_mivae.cli import commands
from pyro_mivae.cli.main import cli
from pyro_mivae.cli.names import COMMANDS

HEAVY = "{'torch', 'pyro', 'numpy', 'matplotlib'}"


def command_of(name):
    return cli.get_command(click.Context(cli), name)


def examples_of(name):
    """Words after the program's name of the examples in a command's help."""
    lines = command_of(name).epilog.splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  pyro-mivae")]


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from pyro_mivae.cli import run_command\n"
        "for words in ([], ['--help'], ['--version']): assert run_command(words) == 0\n"
        f"assert not {HEAVY} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Commands:") == 2
    assert "pyro-mivae, version" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_work_as_typed(name):
    assert examples_of(name)
    for words in examples_of(name):
        assert words[0] == name
        command = command_of(name)
        context = command.make_context(name, words[1:])
        given = context.params.get("variant")
        assert given is None or given in mi.VARIANTS
        if name in ("train", "sweep"):  # the options are those of the variant
            asked = {k: v for k, v in context.params.items() if v is not None}
            known = {f.name for f in commands.fields(commands.ModelOptions)}
            swept = {k: v[0] for k, v in asked.items() if isinstance(v, tuple)}
            model = {k: v for k, v in {**asked, **swept}.items() if k in known}
            mi.runs.config.check_model_options(given, model)


def test_options_stand_in_groups_with_default_and_choices(call):
    code, out, err = call("train", "--help")
    assert (code, err) == (0, [])
    sections = [line[:-1] for line in out.splitlines() if line[:1].isalpha() and line[-1] == ":"]
    assert sections[:2] == ["Data", "Model"]
    assert sections[-3:] == ["Training", "Run", "Other options"]
    assert "Model of cat, infocat" in sections
    parts = dict(zip(sections, out.split(":\n")[1:]))
    assert "--mi-weight" in parts["Model of mmd, vmi, critic-infomax, infocat, infogan"]
    words = " ".join(out.split())
    assert "[default: 20; infogan 64]" in words
    assert "--kernel rbf|imq" in words
    assert "nwj, tuba, donsker-" in words
    assert words.count("--help") == 1


@pytest.mark.parametrize(
    ("words", "begun", "found"),
    [
        ([], "info", {"infomax", "infocat", "infogan"}),
        (["vae", "--prior"], "st", {"student-t", "stick-breaking"}),
        (["vae", "--data"], "fa", {"fashion-mnist"}),
        (["cat", "--categorical"], "s", {"sample", "soft", "straight-through", "score-function"}),
    ],
)
def test_shell_completes_variants_and_choices(words, begun, found):
    from click.shell_completion import ShellComplete

    complete = ShellComplete(cli, {}, "pyro-mivae", "_PYRO_MIVAE_COMPLETE")
    assert {item.value for item in complete.get_completions(["train", *words], begun)} == found


@pytest.mark.parametrize("option", ["--data", "--prior"])
def test_shell_completes_files_where_no_name_begins_so(option):
    from click.shell_completion import ShellComplete

    complete = ShellComplete(cli, {}, "pyro-mivae", "_PYRO_MIVAE_COMPLETE")
    (item,) = complete.get_completions(["train", "vae", option], "my_")
    assert (item.type, item.value) == ("file", "my_")


def test_json_is_all_of_stdout(call, copy):
    code, out, err = call("evaluate", copy, "--json", "--iwae-samples", 2)
    found = json.loads(out)
    assert code == 0
    assert found["run"] == str(copy)
    assert found["metrics"]["elbo"] < 0
    assert json.loads((copy / "metrics.json").read_text())["metrics"] == found["metrics"]
    assert any("written to" in line for line in err)
    priors = json.loads(call("list", "--json")[1])["priors"]
    assert priors.keys() == mi.priors.PRIORS.keys()


def test_quiet_prints_nothing(call, home, unmeasured):
    assert call("sample", home / "run", "--out", "s.png", "--quiet") == (0, "", [])
    assert Path("s.png").is_file()
    data = ["--data", home / "digits.npz", "--epochs", 1, "--run", "q"]
    assert call("train", "vae", "-q", *data) == (0, "", [])


def test_config_gives_options_that_flags_override(call, home, unmeasured):
    Path("mine.toml").write_text(
        f'data = "{home / "digits.npz"}"\n[model]\nlatent_dim = 3\nbeta = 2.0\n'
        "[training]\nepochs = 1\nlr = 0.01\n"
    )
    args = ["--config", "mine.toml", "--beta", 0.5, "--run", "r"]
    assert call("train", "beta", *args)[0] == 0
    made = mi.runs.RunConfig.read(Path("r/config.toml"))
    assert made.model["latent_dim"] == 3
    assert made.model["beta"] == 0.5
    assert (made.training["epochs"], made.training["lr"]) == (1, 0.01)
    # the configuration of a run makes the same run again
    assert call("train", "beta", "--config", "r/config.toml", "--run", "again")[0] == 0
    assert mi.runs.RunConfig.read(Path("again/config.toml")) == made
    code, _, err = call("train", "vae", "--config", "r/config.toml", "--run", "other")
    assert (code, len(err)) == (2, 1)
    assert "r/config.toml holds options of beta, but vae is to be trained" in err[0]
    assert not Path("other").exists()


def test_config_does_not_run_code_unasked(call):
    Path("p.py").write_text("raise SystemExit('it ran')")
    Path("mine.toml").write_text('[model]\nprior = "p.py:P"\n')
    code, _, err = call("train", "vae", "--config", "mine.toml")
    assert (code, len(err)) == (2, 1)
    assert "names code, for prior; read that file, then give --trust" in err[0]


@pytest.mark.parametrize("kind", ["prior", "guide", "term"])
def test_new_file_passes_its_check_and_trains(call, kind, monkeypatch):
    plan = {"steps": 5, "starts": 1}
    monkeypatch.setattr(mi.CategoryStart, "plan", lambda start, n, **how: plan)
    code, out, _ = call("new", kind, "mine.py")
    assert code == 0
    assert "run it: python mine.py" in out
    text = Path("mine.py").read_text()
    assert "FILE.py" not in text
    quick = text.replace("epochs=20, progress=True", "epochs=1")
    assert quick != text
    Path("mine.py").write_text(quick)
    monkeypatch.setattr("sys.argv", ["mine.py"])
    import runpy

    runpy.run_path("mine.py", run_name="__main__")
    assert call("new", kind, "mine.py")[2][0].endswith(
        "mine.py exists; replace it with --overwrite, or choose another"
    )


@pytest.mark.parametrize(("kind", "variant"), [("prior", "cat"), ("guide", "vae")])
def test_new_file_is_a_part_by_name(call, home, unmeasured, kind, variant):
    assert call("new", kind, "mine.py")[0] == 0
    line = next(
        word for word in Path("mine.py").read_text().split() if ":" in word and "mine" in word
    )
    data = ["--data", home / "digits.npz", "--epochs", 1, "--run", "r"]
    data += ["--warm-start", 5] if variant == "cat" else []
    assert call("train", variant, f"--{kind}", line, *data)[0] == 0
