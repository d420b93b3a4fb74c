"""The page of a run: whole, by itself, and looked at in a browser."""

import base64
import dataclasses
import html
import html.parser
import json
import os
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
from helpers.commands import command
from helpers.configs import tiny
from helpers.runs import train
from PIL import Image

from vaebm_jax.config import EnergyConfig, to_json
from vaebm_jax.evaluation.likelihood import evaluate_likelihood
from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks.images import sample
from vaebm_jax.tasks.report import energy, number, unit_of, write_report
from vaebm_jax.training.checkpoints import load_config

VOID = {'meta', 'img'}


class Page(html.parser.HTMLParser):
    """What stands on a page; raises where an element is not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.text, self.tags = [], [], '', set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        attrs = dict(attrs)
        assert 'href' not in attrs
        if tag == 'img':
            self.sources.append(attrs['src'])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ['style']:
            self.text += data


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Trained, not yet sampled or scored; its name is one that HTML must not take for its own."""
    config = dataclasses.replace(tiny(), name='<b>tiny & thin', sample_every=3)
    folder = tmp_path_factory.mktemp('report') / 'run'
    train(config, folder)
    return config, folder


def test_what_is_missing_is_named_with_its_command(run):
    _, folder = run
    page = Page(write_report(folder).read_text())
    assert '<b>tiny & thin' in page.text and 'step 6 of 6' in page.text
    for mode in ('sample', 'evaluate'):
        assert f'python -m vaebm_jax.main --workdir={folder} --mode={mode}' in page.text
    assert 'langevin.num_steps' in page.text
    kinds = [source.split(';')[0] for source in page.sources]
    # Two pictures of the training, and the curves.
    assert kinds[:2] == ['data:image/png'] * 2 and set(kinds[2:]) == {'data:image/svg+xml'}
    for name in ('energy of samples - of data (nats)', 'distortion', 'langevin/energy_drop'):
        assert name in page.text
    assert 'script' not in page.tags


def test_the_page_has_the_numbers_and_pictures_of_the_run(run, tmp_path):
    config, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    sample(config, tmp_path / 'run', num_samples=20)
    result = evaluate(config, tmp_path / 'run', num_samples=20)
    # As a run with weights has them.
    result['refined'] |= {'fd_64': 12.5, 'warning': '20 images are too few'}
    (tmp_path / 'run/evaluation.json').write_text(json.dumps(result))
    text = write_report(tmp_path / 'run').read_text()
    page = Page(text)
    assert 'fd_64–12.5–' in page.text  # Of the refined samples alone.
    assert 'langevin_stepssteps0' in page.text and 'mean (nats)' in page.text
    assert '20 images are too few.' in page.text
    assert f'{result["diagnostics"]["energies"]["train"]["mean"]:.4g}' in page.text
    assert 'uniform noise' in page.text and 'not drawn yet' not in page.text
    kinds = [source.split(';')[0] for source in page.sources]
    assert kinds[:6] == ['data:image/png'] * 6 and set(kinds[6:]) == {'data:image/svg+xml'}
    assert 'Energies of sets of images and of samples' in page.text
    # Nothing is fetched: no address but the names of SVG's own vocabulary, inside the data.
    assert not re.search(r'https?://|url\(|@import', text)


def test_the_likelihood_of_the_test_images(run, tmp_path):
    _, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    assert '--mode=likelihood' in Page(write_report(folder).read_text()).text
    config = load_config(tmp_path / 'run')
    result = evaluate_likelihood(config, tmp_path / 'run', num_samples=8, num_temperatures=20)
    text = Page(write_report(tmp_path / 'run').read_text()).text
    assert '--mode=likelihood' not in text
    found = text.partition('Likelihood')[2].partition('Config')[0]
    for row, unit in (('nats', 'nats'), ('bits_per_dimension', 'bits per dim')):
        assert unit + ''.join(number(value) for value in result[row].values()) in found
    for way in ('forward', 'reverse_forward', 'reverse_samples'):
        cells = ''.join(str(number(value)) for value in result['log_z'][way].values())
        assert way.replace('_', ' from ') + cells in found
    assert 'effective chains of 8' in found
    assert ('warning' in result) == (result.get('warning', '?') in found)


def test_a_run_without_a_likelihood_is_not_told_to_measure_it(run, tmp_path):
    config, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    config = dataclasses.replace(config, energy=EnergyConfig(reference_std=0.0))
    (tmp_path / 'run/config.json').write_text(to_json(config))
    text = Page(write_report(tmp_path / 'run').read_text()).text
    assert 'Likelihood' not in text and '--mode=likelihood' not in text


@pytest.mark.parametrize(
    ('name', 'unit'),
    [
        ('psnr_hole', 'dB'),
        ('kl_data_histogram', 'nats'),
        ('bits_per_dim_test', 'bits per dim'),
        ('num_samples', 'images'),
        ('fid', ''),
        ('ssim', ''),
    ],
)
def test_units(name, unit):
    assert unit_of(name) == unit


def test_each_set_of_the_histogram_has_a_line_of_its_own():
    """As many as a method with four stages has, and more."""
    counts = {f'set {i}': [i, 1] for i in range(14)}
    image = {'num_images': 1, 'mean': 0.0, 'std': 0.0}
    found = energy(
        {
            'diagnostics': {
                'histogram': {'edges': [0.0, 1.0, 2.0], 'counts': counts},
                'energies': {'test': image},
                'long_chains': [],
                'acceptance': {},
            }
        }
    )
    picture = base64.b64decode(found['histogram'].data).decode()
    styles = re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="([^"]*)"/>', picture)
    assert len(styles) == len(set(styles)) == 14


def test_numbers_that_were_not_finite_leave_a_gap(run, tmp_path):
    _, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    path = tmp_path / 'run/metrics.jsonl'
    row = json.loads(path.read_text().splitlines()[-1])
    row |= {'energy_data': None, 'rate': None, 'step': 8}
    path.write_text(path.read_text() + json.dumps(row) + '\n' + '{"step": 1')
    assert 'step 8 of 6' in Page(write_report(tmp_path / 'run').read_text()).text


def test_warnings_of_the_training_stand_above_the_curves(run, tmp_path):
    _, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    path = tmp_path / 'run/metrics.jsonl'
    last = json.loads(path.read_text().splitlines()[-1])
    rows = [last | {'step': step, 'spread': 0.02} for step in range(190, 270, 10)]
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    text = Page(write_report(tmp_path / 'run').read_text()).text
    assert text.count('warning: all samples look the same') == 5 and 'And 2 more.' in text
    assert 'Step 200: warning' in text and 'Step 190' not in text


def test_a_rollback_is_no_row_of_numbers_and_the_first_has_no_speed(run, tmp_path):
    """A run that has just gone back, or ended so: its last row is the event."""
    _, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    path = tmp_path / 'run/metrics.jsonl'
    first, second, *_ = map(json.loads, path.read_text().splitlines())
    assert 'images_per_second' in second
    first.pop('images_per_second', None)
    event = {'step': 4, 'event': 'rollback', 'rollbacks': 1, 'diverged_at': 6, 'rate': None}
    for rows in ([first, second, event], [second, first]):
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
        page = Page(write_report(tmp_path / 'run').read_text())
        panels = page.text.partition('By training step.')[2].partition('The energy')[0].split()
        assert 'images_per_second' in panels and 'event' not in panels


def test_names_and_values_are_text_whatever_they_are(run, tmp_path):
    """Of the folder, the config, the metrics and the scores: none is taken for HTML."""
    config, folder = run
    script = '<script>alert("1")</script>'
    workdir = tmp_path / '<script>alert(2)<' / 'script>'  # A name has no slash.
    workdir.parent.mkdir()
    shutil.copytree(folder, workdir)
    config = dataclasses.replace(config, name=script)
    (workdir / 'config.json').write_text(to_json(config))
    row = {'step': 6, script: 1.0}
    (workdir / 'metrics.jsonl').write_text(json.dumps(row) + '\n')
    row = {'num_samples': 20, script: script, 'warning': script}
    evaluation = {'checkpoint_step': 6, 'ema': True, script: row}
    (workdir / 'evaluation.json').write_text(json.dumps(evaluation))
    text = write_report(workdir).read_text()
    page = Page(text)
    assert not {'script', 'b'} & page.tags and '<script' not in text.lower()
    assert page.text.count(script) > 5 and str(workdir) in page.text
    for value in re.findall(r'="([^"]*)"', text):  # Of attributes, captions among them.
        assert '<' not in value


def test_commands_are_for_a_shell(run, tmp_path):
    """Of a folder whose name has a space and a quote."""
    _, folder = run
    workdir = tmp_path / "it's mine"
    shutil.copytree(folder, workdir)
    (line,) = re.findall('Not examined yet: (.*)', Page(write_report(workdir).read_text()).text)
    assert shlex.split(line)[3] == f'--workdir={workdir}'


def test_mistakes_cost_one_line(run, tmp_path):
    with pytest.raises(UserError, match='workdir must hold a run'):
        write_report(tmp_path)
    _, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    (tmp_path / 'run/evaluation.json').write_text('{')
    with pytest.raises(UserError, match='evaluation.json cannot be read'):
        write_report(tmp_path / 'run')
    result = command('--mode=report', '--workdir=run', cwd=tmp_path)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr


def test_the_command_line_writes_the_page(run, tmp_path):
    _, folder = run
    result = command('--mode=report', f'--workdir={folder}', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(folder / 'report.html')


@pytest.mark.slow
def test_a_browser_shows_it(run, tmp_path):
    """Headless Chromium from the disk: every picture is decoded, and nothing wider than the page.

    As wide as a desktop and a phone have it.
    """
    browser = (
        shutil.which('chromium')
        or shutil.which('chromium-browser')
        or shutil.which('google-chrome')
    )
    if browser is None:
        pytest.skip('needs Chromium (apt-get install chromium)')
    config, folder = run
    shutil.copytree(folder, tmp_path / 'run')
    sample(config, tmp_path / 'run', num_samples=20)
    evaluate(config, tmp_path / 'run', num_samples=20)
    path = write_report(tmp_path / 'run')
    script = (
        '<script>addEventListener("load", () => { const all = [...document.images]; '
        'const seen = all.filter(i => i.complete && i.naturalWidth > 50 && i.width <= innerWidth); '
        'const { scrollWidth, clientWidth } = document.documentElement; '
        'document.title = `seen ${seen.length} of ${all.length}, on ${innerWidth} pixels and '
        '${scrollWidth - clientWidth} beyond` })'
        '</script></body>'
    )
    probe = tmp_path / 'probe.html'
    page = path.read_text()
    probe.write_text(page.replace('</body>', script))
    # An iframe, for Chromium has no window as narrow.
    phone = tmp_path / 'phone.html'
    framed = html.escape(probe.read_text().replace('document.title', 'parent.document.title'))
    phone.write_text(
        f'<iframe srcdoc="{framed}" width="390" height="800" frameborder="0"></iframe>'
    )
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--window-size=1200,6000']
    environment = os.environ | {'HOME': str(tmp_path)}

    def look(*arguments):
        return subprocess.run(
            [browser, *options, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            check=True,
        ).stdout

    count = page.count('<img')
    for file, width in ((probe, 1200), (phone, 390)):
        (title,) = re.findall('<title>(seen .*?)</title>', look('--dump-dom', file.as_uri()))
        assert title == f'seen {count} of {count}, on {width} pixels and 0 beyond'
    look(f'--screenshot={tmp_path / "page.png"}', path.as_uri())
    with Image.open(tmp_path / 'page.png') as picture:
        pixels = np.asarray(picture.convert('L'), np.float32)
    assert pixels.shape == (6000, 1200) and pixels.std() > 20
