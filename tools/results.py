"""Records the scores of documented runs, and writes the tables of the docs from them.

    python tools/results.py record mnist --workdir=runs/mnist --cpu_minutes=10.6 \
        --command='python -m vaebm_jax.main --config=configs/mnist.py --workdir=runs/mnist' ...
    python tools/results.py tables

The first gathers config, commit, commands, versions, processor and scores of a run in
`docs/results/mnist.json`. `commit` is that of the training, `commit_of_scores` the one that is
checked out. Scores are those of `evaluation.json` and every `legibility*.json` in the workdir. The
second writes the
tables of README.md and docs/ between their marks `<!-- results: NAME -->` and `<!-- end -->`.
tests/test_results.py compares the tables and the configs with the files.
"""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import re
import subprocess

from vaebm_jax.config import flatten
from vaebm_jax.training.checkpoints import load_config

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / 'docs' / 'results'
PAGES = ('README.md', 'docs/results.md', 'docs/recovery.md')
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')


def record(workdir: pathlib.Path, commit: str, commands: list[str], cpu_minutes: float) -> dict:
    """The record of a run, for JSON."""
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    evaluation = json.loads((workdir / 'evaluation.json').read_text())
    evaluation.get('diagnostics', {}).pop('histogram', None)
    legibility = {
        file.stem: json.loads(file.read_text()) for file in sorted(workdir.glob('legibility*.json'))
    }
    return {
        'config': flatten(load_config(workdir)),
        'commit': commit_of(commit),
        'commit_of_scores': commit_of('HEAD'),
        'commands': commands,
        'versions': {'python': platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        'processor': processor(),
        'cpu_minutes': cpu_minutes,
        'rollbacks': sum(row.get('event') == 'rollback' for row in rows),
        'evaluation': evaluation,
    } | legibility


def commit_of(name: str) -> str:
    """A commit's full digest."""
    command = ['git', 'rev-parse', '--verify', f'{name}^{{commit}}']
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def processor() -> str:
    """The CPU's name, cores and widest vector extensions, from /proc/cpuinfo."""
    text = pathlib.Path('/proc/cpuinfo').read_text()
    name = re.search(r'^model name\s*: (.*)', text, re.M)[1]
    cores = len(re.findall(r'^processor\s', text, re.M))
    widest = [flag for flag in ('avx2', 'avx512f', 'avx512_bf16') if f' {flag}' in text]
    return f'{name}, {cores} cores, {" ".join(widest)}'


def read(name: str) -> dict:
    """The record of a run."""
    return json.loads((RESULTS / f'{name}.json').read_text())


def table(head: str, rows: list[list[str]]) -> str:
    """A Markdown table; `head` has the columns' names, separated by bars."""
    columns = head.count('|') + 1
    lines = [f'| {head} |', '|' + '---|' * columns]
    return '\n'.join(lines + [f'| {" | ".join(row)} |' for row in rows])


def percent(share: float) -> str:
    return f'{100 * share:.1f} %'


def legibility() -> str:
    """Shares of samples with a classifier probability of 0.9 or more."""
    rows = []
    for name, judge, about in (
        ('mnist', 'legibility', ''),
        ('fashion_mnist', 'legibility', ''),
        ('fashion_mnist', 'legibility_wide', ', `--wide`'),
    ):
        run = read(name)
        scores = run[judge]
        shares = [scores[stage]['share_p90'] for stage in ('ancestral', 'refined', 'test')]
        refined = scores['refined']
        classes = f'{100 * refined["smallest_class_share"]:.1f} to '
        classes += percent(refined['largest_class_share'])
        recalls = [scores[stage]['recall'] for stage in ('ancestral', 'refined', 'test')]
        ancestral, refined_share, real = map(percent, shares)
        rows.append(
            [
                f'`configs/{name}.py`{about}',
                f'{run["cpu_minutes"]:.1f} min',
                percent(scores['classifier_accuracy']),
                ancestral,
                f'**{refined_share}**',
                real,
                classes,
                ', '.join(f'{recall:.2f}' for recall in recalls),
            ]
        )
    columns = 'config, seed 0 | CPU time | classifier | ancestral | refined | test images | classes'
    return table(f'{columns} | recall', rows)


def frechet() -> str:
    """Frechet distances of unconditional models."""
    rows = []
    for name in ('mnist', 'fashion_mnist'):
        evaluation = read(name)['evaluation']
        refined = evaluation['refined']
        first = f'`configs/{name}.py`, {refined["num_samples"]:,} and {refined["reference_size"]:,}'
        for width in ('fd_64', 'fd_192', 'fd_768'):
            values = [evaluation[stage][width] for stage in ('ancestral', 'refined', 'refined_2x')]
            best = min(values)
            cells = [f'**{v:.3g}**' if v == best else f'{v:.3g}' for v in values]
            rows.append([first, f'`{width}`', *cells])
            first = ''
    return table('samples and images | | ancestral | refined | refined, twice the steps', rows)


def energies() -> str:
    """What the energies discriminate, and how long chains behave."""
    runs = [read(name)['evaluation']['diagnostics'] for name in ('mnist', 'fashion_mnist')]
    others = ('fashion_mnist', 'mnist')
    auroc = lambda name: [f'{run["energies"][name]["auroc"]:.3f}' for run in runs]
    of_other = [run['energies'][other] for run, other in zip(runs, others, strict=True)]
    chains = [run['long_chains'][1:] for run in runs]
    rows = [
        ['AUROC, training images (0.5: it has not memorized them)', *auroc('train')],
        ['AUROC, the other of the two data sets', *(f'{row["auroc"]:.3f}' for row in of_other)],
        [
            'the same by the reference term alone',
            *(f'{row["auroc_reference_term"]:.3f}' for row in of_other),
        ],
        *(
            [f'AUROC, {name}', *auroc(name)]
            for name in ('inverted', 'shuffled pixels', 'uniform noise')
        ),
        ['AUROC, refined samples', *auroc('refined')],
        ['AUROC, ancestral samples', *auroc('ancestral')],
        [
            'Metropolis acceptance of a training step, from refined samples',
            *(f'{run["acceptance"]["mean"]:.2f}' for run in runs),
        ],
        [
            'energy after 1, 10, 100 training lengths, from ancestral samples on',
            *(', '.join(f'{row["energy"]:.1e}' for row in rows) for rows in chains),
        ],
        [
            'distance moved by then, over all pixels',
            *(', '.join(f'{row["distance"]:.1f}' for row in rows) for rows in chains),
        ],
    ]
    return table('| MNIST | Fashion-MNIST', rows)


def recovery() -> str:
    """Facades: fills without a network, and the model's recoveries."""
    evaluation = read('facades_64')['evaluation']
    names = {
        'fill_grey': 'grey',
        'fill_mean': 'mean of the observed pixels',
        'fill_harmonic': 'harmonic',
        'fill_biharmonic': 'biharmonic (scikit-image)',
        'fill_hint': 'the initial fill: harmonic and edge profiles',
        'fill_ridge': 'initial fill and ridge regression',
        'ancestral': 'ancestral',
        'refined': 'refined',
        'mean_ancestral': 'mean of 16 ancestral',
        'mean': 'mean of 16 refined',
        'best': 'best of 16 refined (knows the truth)',
    }
    digits = {'psnr_hole': 2, 'psnr': 2, 'ssim_hole': 3, 'ssim': 3, 'fd_64': 3}
    rows = [
        [words, *(f'{evaluation[name][score]:.{n}f}' for score, n in digits.items())]
        for name, words in names.items()
    ]
    return table('106 test images | PSNR hole | PSNR | SSIM hole | SSIM | fd_64', rows)


TABLES = {
    'legibility': legibility,
    'frechet': frechet,
    'energies': energies,
    'recovery': recovery,
}


def with_tables(page: str) -> str:
    """A page with its tables written from the records."""
    return re.sub(
        r'(<!-- results: (\w+) -->\n).*?(<!-- end -->)',
        lambda mark: f'{mark[1]}\n{TABLES[mark[2]]()}\n\n{mark[3]}',
        page,
        flags=re.DOTALL,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest='verb', required=True)
    verbs.add_parser('tables', help='Write the tables of README.md and docs/.')
    recording = verbs.add_parser('record', help='Keep the scores of a run in docs/results/.')
    recording.add_argument('name', help='Of the file, such as mnist.')
    recording.add_argument('--workdir', type=pathlib.Path, required=True)
    recording.add_argument('--commit', default='HEAD', help='That the run was trained with.')
    recording.add_argument('--cpu_minutes', type=float, required=True, help='Of the training.')
    recording.add_argument('--command', action='append', required=True, help='One, or several.')
    given = parser.parse_args()
    if given.verb == 'record':
        result = record(given.workdir, given.commit, given.command, given.cpu_minutes)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f'{given.name}.json').write_text(json.dumps(result, indent=1) + '\n')
        return
    for page in PAGES:
        path = ROOT / page
        path.write_text(with_tables(path.read_text()))


if __name__ == '__main__':
    main()
