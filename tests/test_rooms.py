"""The order of the package's folders, and what importing some of it loads."""

import ast
import graphlib
import json
import subprocess
import sys

import pytest
from helpers.commands import ROOT

from vaebm_jax.evaluation import inception

# A folder imports from those before it alone.
ROOMS = (
    *('runtime', 'samplers', 'config', 'data', 'models', 'methods'),
    *('training', 'evaluation', 'figures', 'tasks', 'cli'),
)


def modules(folder):
    """The Python files below a folder, by their dotted names."""
    names = {}
    for path in (ROOT / folder).rglob('*.py'):
        *parents, name = path.relative_to(ROOT).with_suffix('').parts
        names['.'.join(parents if name == '__init__' else [*parents, name])] = path
    return names


def imports(path):
    """What a file imports, within functions too: dotted names, of modules or of what is in them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def arrows():
    """Which modules of the package a module imports."""
    own = modules('vaebm_jax')
    graph = {}
    for name, path in own.items():
        found = {thing if thing in own else thing.rpartition('.')[0] for thing in imports(path)}
        graph[name] = found & own.keys()
    return graph


def room_of(name):
    """Of a module; '' of those beside the folders."""
    return (name.split('.')[1:] or [''])[0]


def test_there_are_these_folders_and_a_door_beside_them():
    folders = {path.parent.name for path in (ROOT / 'vaebm_jax').glob('*/*.py')}
    assert folders == set(ROOMS)
    assert {path.stem for path in (ROOT / 'vaebm_jax').glob('*.py')} == {
        *('__init__', '__main__', 'inception', 'main')
    }


@pytest.mark.parametrize('room', ROOMS)
def test_a_folder_imports_from_those_before_it_alone(room):
    before = ROOMS[: ROOMS.index(room) + 1]
    for name, others in arrows().items():
        if room_of(name) == room:
            upwards = [other for other in others if room_of(other) not in before]
            assert not upwards, f'{name} imports {upwards}'


def test_no_imports_go_round_in_a_circle():
    order = list(graphlib.TopologicalSorter(arrows()).static_order())
    assert set(order) == modules('vaebm_jax').keys()


def test_no_test_imports_a_test():
    for path in (ROOT / 'tests').rglob('*.py'):
        for name in imports(path):
            assert not name.startswith(('test_', 'tests.', 'conftest')), f'{path} imports {name}'


def test_tests_stand_in_folders_of_these_names():
    tests = {path.parent.name for path in (ROOT / 'tests').glob('*/*.py')}
    assert tests == {*ROOMS, 'helpers'}


def loaded_by(statement):
    """The packages beyond the standard library that an import loads, in a process of its own."""
    code = (
        'import json, sys\n'
        'before = set(sys.modules)\n'
        f'{statement}\n'
        'print(json.dumps(sorted(set(sys.modules) - before)))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    names = {name.partition('.')[0] for name in json.loads(done.stdout)}
    return names - sys.stdlib_module_names


def test_importing_the_package_loads_nothing_heavier_than_jax_flax_optax_and_chex():
    frame = loaded_by('import chex, flax.linen, flax.training.train_state, jax, numpy, optax')
    assert loaded_by('import vaebm_jax') - frame == {'vaebm_jax'}


def test_the_loop_loads_nothing_that_only_pictures_and_scores_need():
    """Handed its previews, it neither loads nor needs them."""
    names = [name for name in modules('vaebm_jax') if room_of(name) == 'training']
    loaded = loaded_by(f'import {", ".join(names)}')
    assert 'orbax' in loaded
    assert not loaded & {'skimage', 'sklearn', 'matplotlib', 'tensorflow'}


def test_scripts_outside_find_what_they_import():
    """By the names of before there were folders."""
    from vaebm_jax.inception import inception_features, load_inception

    assert inception_features is inception.inception_features
    assert load_inception is inception.load_inception
