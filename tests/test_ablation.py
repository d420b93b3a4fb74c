"""benchmarks/ablation.py: rows are configs of equal cost, and the table reads what is there."""

import json
import subprocess
import sys

from helpers.commands import ROOT

# In a process of its own: its flags have the names of main's.
PROGRAM = """
import json, pathlib, sys
import ablation, operations
from vaebm_jax.config import flatten, validate
whole = ablation.recipe()
settings = {}
for name, changes in ablation.ROWS.items():
    config = ablation.changed(whole, changes)
    validate(config)
    steps = ablation.steps_of(config, whole, 3000)
    settings[name] = flatten(config) | {'cost': steps * operations.count(config)}
print(json.dumps([settings, ablation.table(pathlib.Path(sys.argv[1]))]))
"""


def test_rows_are_configs_of_equal_cost_and_finished_ones_stand_in_the_table(tmp_path):
    stage = {
        'frechet_distance': 12.34,
        'share_p90': 0.5,
        'recall': 0.25,
        'smallest_class_share': 0.07,
    }
    row = {'row': 'recipe', 'seed': 1, 'steps': 3000, 'cpu_minutes': 2.0, 'rollbacks': 0}
    row |= {'ancestral': stage | {'share_p90': 0.125}, 'refined': stage}
    (tmp_path / 'recipe_1.json').write_text(json.dumps(row))
    failed = {'row': 'paper', 'seed': 0, 'steps': 9, 'cpu_minutes': 1.0, 'failed': 'it diverged'}
    (tmp_path / 'paper_0.json').write_text(json.dumps(failed))
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, tmp_path],
        cwd=ROOT / 'benchmarks',
        capture_output=True,
        text=True,
        check=True,
    )
    settings, table = json.loads(done.stdout)
    whole = settings['recipe']
    for name, config in settings.items():
        assert abs(config['cost'] / whole['cost'] - 1) < 1e-3, name
    assert settings['paper']['vae.known_z_weight'] == 0 == settings['paper']['vae.truth_weight']
    assert settings['paper']['energy.spectral_norm'] == 0
    assert settings['known_z']['vae.known_z_weight'] == whole['vae.known_z_weight'] > 0
    assert settings['known_z']['energy.reference_std'] > 0 == whole['energy.reference_std']
    assert settings['spectral_norm']['energy.data_noise'] == 0 < whole['energy.data_noise']
    *_, first, second = table.strip().splitlines()
    assert first.startswith('| paper | 0 | 9 | 1.0 | it diverged |')
    assert second == (
        '| recipe | 1 | 3000 | 2.0 | 12.3 | 12.3 | 12.5% | 50.0% | 0.25 | 0.25 | 7.0% | 0 |'
    )
