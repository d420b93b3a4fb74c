"""What an installed package has, which an editable install, as tests run on, does not tell."""

import shutil
import subprocess
import sys
import tarfile
import zipfile

from helpers.commands import ROOT

import vaebm_jax


def copy_of_the_repository(folder):
    """What git tracks, or would: a build beside it would leave, and take, files of its own."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split('\0')):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def files_of_the_wheel(source, folder):
    """Built by the environment's own setuptools: no network."""
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-qq', '--disable-pip-version-check', '--no-index']
        + ['--no-deps', '--no-build-isolation', '--wheel-dir', folder, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob('vaebm_jax-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if '.dist-info/' not in name}


def test_the_source_distribution_has_what_builds_the_wheel_and_the_docs(tmp_path):
    source = tmp_path / 'source'
    copy_of_the_repository(source)
    build = 'from setuptools.build_meta import build_sdist; build_sdist("dist")'
    subprocess.run([sys.executable, '-c', build], cwd=source, capture_output=True, check=True)
    (path,) = (source / 'dist').glob('*.tar.gz')
    with tarfile.open(path) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    for folder in ('vaebm_jax', 'configs', 'docs', 'launch', 'tests', 'tools'):
        files = {path for path in (source / folder).rglob('*') if path.is_file()}
        assert {path.relative_to(source).as_posix() for path in files} - names == set()
    assert {'configs/digits.py', 'CITATION.cff', 'CHANGELOG.md', 'setup.py'} < names


def test_the_wheel_has_the_files_of_the_repository(tmp_path):
    """Those of every folder, and of folders within: there is none yet, so one is added."""
    source = tmp_path / 'source'
    copy_of_the_repository(source)
    (source / 'vaebm_jax' / 'data' / 'inner').mkdir()
    for name in ('__init__.py', 'module.py'):
        (source / 'vaebm_jax' / 'data' / 'inner' / name).touch()
    package = [path for path in (source / 'vaebm_jax').rglob('*') if path.is_file()]
    names = {path.relative_to(source).as_posix() for path in package}
    assert {'vaebm_jax/py.typed', 'vaebm_jax/weights/mnist.npz'} < names
    configs = {f'vaebm_jax/configs/{path.name}' for path in (source / 'configs').iterdir()}
    assert 'vaebm_jax/configs/digits.py' in configs
    names |= configs
    assert files_of_the_wheel(source, tmp_path / 'wheel') == names


def test_the_citation_is_of_this_version():
    text = (ROOT / 'CITATION.cff').read_text()
    assert f'\nversion: {vaebm_jax.__version__}\n' in text
    assert f'## {vaebm_jax.__version__}' in (ROOT / 'CHANGELOG.md').read_text()
