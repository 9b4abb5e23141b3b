"""Commands on runs with differential privacy."""

from support.federations import tiny, write_text


def test_run_shows_the_epsilon(fedtlu, tmp_path):
    text = write_text(tmp_path / "a.txt")
    path = tmp_path / "private.yaml"
    settings = {"noise_multiplier": 1.0, "delta": 1e-3}
    path.write_text(tiny(text, privacy=settings, participation={"sampler": "poisson"}, rounds=3).to_yaml())
    done = fedtlu("run", "--config", path, "--out", tmp_path / "out")
    assert done.code == 0
    assert "epsilon spent" in done.stdout
