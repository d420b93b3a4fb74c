"""Scores how legible the generated digits (or garments) of trained runs are.

A small convolutional classifier, trained here on the real training images, looks
at the real test images and at generated ones, at each stage of the sampler: before (`ancestral`)
and after (`latent`, if the config has such steps, and `refined`) the energy's refinement:

  python benchmarks/legibility.py --workdir=runs/mnist --classifier=mnist.npz

Several runs may be given, comma separated; with none, only the test images are
scored. `--classifier` keeps the trained classifier in that file for later calls.
The table, also written to `<workdir>/legibility.json` (`legibility_wide.json`), gives for
each set of images

  p>=.9, p>=.99   share of images whose largest class probability is that high,
  mean p          mean of the largest class probability,
  prec, recall    share of the images that lie among training images, and of training images that
                  lie among them: within the distance of a third neighbour, by the classifier's
                  last hidden layer and as many images of either (T. Kynkaanniemi et al., 2019),
  fd              Frechet distance to those training images, by the same layer,
  min, max        smallest and largest class share,
  0 ... 9         share of images assigned to each class.

Legible samples come close to the row of the test images in the first five columns and
in the class shares. Read them together: a smallest share near 0 means missing classes, and
the classifier can be sure of what is no digit (that of MNIST took 0.999 of 1500 images of
standard normal noise for an 8, with p >= 0.9). Few prototypes are legible, too: recall shows them.

`--wide` trains a classifier of twice the width for longer, and on mirrored images too: a better
judge of garments. Digits have a side; for them it is refused. CIFAR-10 is judged at 16 pixels, as
`configs/cifar10.py:small` draws it, by a wider one, always with mirrored images. Expect about three
minutes of CPU time for the training, eleven for the wide one's and CIFAR-10's, and about

  data set, classifier    test accuracy  p>=.9  p>=.99  mean p   prec  recall
  mnist                          99.55%  0.988   0.966   0.995  0.890   0.873
  fashion_mnist                  92.02%  0.791   0.608   0.929  0.880   0.872
  fashion_mnist, --wide          93.08%  0.826   0.667   0.942  0.864   0.865
  cifar10                        77.54%  0.528   0.301   0.819  0.747   0.750
"""

import dataclasses
import os
import time

import flax.linen as nn
import jax
import numpy as np
import optax
import program
import tensorflow_datasets as tfds
from absl import app, flags
from flax.traverse_util import flatten_dict, unflatten_dict

from vaebm_jax import load
from vaebm_jax.data.batch import to_uint8
from vaebm_jax.data.loading import block_means
from vaebm_jax.evaluation.metrics import Moments, frechet_distance
from vaebm_jax.evaluation.precision_recall import NUM_NEIGHBORS, precision_and_recall
from vaebm_jax.methods import sample_stages
from vaebm_jax.methods.generate import generate_by, generate_keys
from vaebm_jax.models.apply import averaged
from vaebm_jax.runtime.atomic_files import write_json

FLAGS = flags.FLAGS
flags.DEFINE_list('workdir', [], 'Folders of the trained runs, comma separated.')
flags.DEFINE_integer('num_samples', 2000, 'Images to generate.', lower_bound=NUM_NEIGHBORS + 1)
flags.DEFINE_integer('seed', 0, 'Seed of the generated images.')
flags.DEFINE_integer(
    'langevin_steps', None, "Steps of the chain; default: each run's own.", lower_bound=1
)
flags.DEFINE_enum('dataset', 'mnist', ['mnist', 'fashion_mnist', 'cifar10'], 'Real images.')
flags.DEFINE_string('data_dir', None, 'Folder of the TFDS data sets.')
flags.DEFINE_bool('wide', False, 'Train the wider classifier.')
flags.DEFINE_string('classifier', None, 'Weights (npz): read, or else written.')

NUM_CLASSES = 10
WIDTH, WIDE, WIDEST = 16, 32, 64  # Features of the first convolution.
NUM_EPOCHS = {WIDTH: 8, WIDE: 10, WIDEST: 14}
DROPOUT = {WIDTH: 0.3, WIDE: 0.4, WIDEST: 0.5}
IMAGE_SIZE = {'cifar10': 16}  # Pixels a side, where not the data set's own.
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 2e-3
MAX_SHIFT = 1  # Pixels.
# Below, the classifier is not one of the data set.
MIN_ACCURACY = {'mnist': 0.98, 'fashion_mnist': 0.88, 'cifar10': 0.72}


def max_pool(x):
    """Max pooling 2x2 (the gradient of `nn.max_pool` is slow on a CPU)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.max(axis=(2, 4))


class Classifier(nn.Module):
    """Class logits of images in [-1, 1], and the last hidden layer, of 8 `width`."""

    width: int

    @nn.compact
    def __call__(self, images, dropout_key=None):
        x = nn.relu(max_pool(nn.Conv(self.width, (3, 3))(images)))
        x = nn.relu(max_pool(nn.Conv(2 * self.width, (3, 3))(x)))
        x = nn.relu(nn.Conv(4 * self.width, (3, 3))(x))
        hidden = nn.relu(nn.Dense(8 * self.width)(x.reshape(len(x), -1)))
        dropout = nn.Dropout(DROPOUT[self.width], deterministic=dropout_key is None)
        x = dropout(hidden, rng=dropout_key)
        return nn.Dense(NUM_CLASSES)(x), hidden


def read_split(name, split, data_dir, chunk_size=1000):
    """Returns all images, in [-1, 1], and labels of a split."""
    source = tfds.data_source(name, split=split, data_dir=data_dir, download=False)
    examples = []
    for start in range(0, len(source), chunk_size):
        stop = min(start + chunk_size, len(source))
        examples.extend(source.__getitems__(range(start, stop)))
    images = np.stack([example['image'] for example in examples])
    images = block_means(images, IMAGE_SIZE.get(name, images.shape[1]))
    labels = np.array([example['label'] for example in examples])
    return images.astype(np.float32) / 127.5 - 1.0, labels


def random_shift(images, generator):
    """Shifts each image by up to MAX_SHIFT pixels along both axes."""
    pad = (MAX_SHIFT, MAX_SHIFT)
    padded = np.pad(images, ((0, 0), pad, pad, (0, 0)), constant_values=-1.0)
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, images.shape[1:3], axis=(1, 2)
    )  # [N, dy, dx, C, H, W].
    dy, dx = generator.integers(0, 2 * MAX_SHIFT + 1, (2, len(images)))
    return np.moveaxis(windows[np.arange(len(images)), dy, dx], 1, -1)


def random_flip(images, generator):
    """Mirrors half of the images, left to right."""
    flip = generator.random((len(images), 1, 1, 1)) < 0.5
    return np.where(flip, images[:, :, ::-1], images)


def width_of(params):
    return params['Conv_0']['bias'].shape[0]


def train_classifier(images, labels, width):
    """Returns the parameters of a classifier trained on the images."""
    classifier = Classifier(width)
    steps_per_epoch = len(images) // BATCH_SIZE
    num_steps = NUM_EPOCHS[width] * steps_per_epoch
    schedule = optax.cosine_onecycle_schedule(num_steps, PEAK_LEARNING_RATE, 0.2)
    optimizer = optax.adam(schedule)
    params = classifier.init(jax.random.key(0), images[:1])['params']
    optimizer_state = optimizer.init(params)

    @jax.jit
    def train_step(params, optimizer_state, key, batch_images, batch_labels):
        def loss_fn(params):
            logits, _ = classifier.apply({'params': params}, batch_images, key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch_labels).mean()

        grads = jax.grad(loss_fn)(params)
        updates, optimizer_state = optimizer.update(grads, optimizer_state)
        return optax.apply_updates(params, updates), optimizer_state

    generator = np.random.default_rng(0)
    for step in range(num_steps):
        position = step % steps_per_epoch
        if position == 0:
            permutation = generator.permutation(len(images))
        batch = permutation[position * BATCH_SIZE : (position + 1) * BATCH_SIZE]
        batch_images = random_shift(images[batch], generator)
        if width != WIDTH:
            batch_images = random_flip(batch_images, generator)
        params, optimizer_state = train_step(
            params,
            optimizer_state,
            jax.random.fold_in(jax.random.key(1), step),
            batch_images,
            labels[batch],
        )
    return jax.device_get(params)


def load_or_train_classifier(path, dataset, data_dir, width):
    """Returns the parameters in the file, if there is one, or trains them."""
    if path and os.path.exists(path):
        with np.load(path, allow_pickle=False) as arrays:
            params = unflatten_dict(dict(arrays), sep='/')
        if width_of(params) != width:
            raise ValueError(f'{path} holds another classifier: --dataset and --wide say which.')
        return params
    start = time.time()
    params = train_classifier(*read_split(dataset, 'train', data_dir), width)
    print(f'Trained the classifier in {time.time() - start:.0f} s.')
    if path:
        with open(f'{path}.part', 'wb') as file:
            np.savez(file, **flatten_dict(params, sep='/'))
        os.replace(f'{path}.part', path)  # A run that is killed leaves no half of it.
    return params


@jax.jit
def classify(params, images):
    logits, hidden = Classifier(width_of(params)).apply({'params': params}, images)
    return jax.nn.softmax(logits), hidden


def predict(params, images, chunk_size=1000):
    """Returns class probabilities and features `[N, 8 width]` of images, clipped to [-1, 1]."""
    images = np.asarray(images, np.float32)
    if not np.isfinite(images).all():
        raise ValueError('Some images hold values that are not finite.')
    images = np.clip(images, -1.0, 1.0)
    chunks = [
        classify(params, images[start : start + chunk_size])
        for start in range(0, len(images), chunk_size)
    ]
    probabilities, features = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return probabilities, features


def at_size_of(images, samples):
    """Samples in [-1, 1] at the judge's size: larger ones by the means over blocks of pixels."""
    size = images.shape[1]
    if samples.shape[1] % size or samples.shape[3] != images.shape[3]:
        raise ValueError(f'the judge sees images {images.shape[1:]}, got {samples.shape[1:]}.')
    if samples.shape[1] == size:
        return samples
    return block_means(to_uint8(samples), size) / np.float32(127.5) - 1.0


def legibility(probabilities, features, reference):
    """Returns the scores of a set of images as a dictionary.

    Args:
      probabilities: `[N, 10]`.
      features: `[N, D]`.
      reference: `[N, D]`, of training images.
    """
    largest = probabilities.max(axis=-1)
    counts = np.bincount(probabilities.argmax(axis=-1), minlength=NUM_CLASSES)
    shares = counts / len(probabilities)
    precision, recall = precision_and_recall(features, reference)
    moments, of_reference = Moments.empty(features.shape[1]), Moments.empty(features.shape[1])
    moments.add(features)
    of_reference.add(reference)
    return {
        'share_p90': float((largest >= 0.9).mean()),
        'share_p99': float((largest >= 0.99).mean()),
        'mean_largest_probability': float(largest.mean()),
        'precision': precision,
        'recall': recall,
        'frechet_distance': frechet_distance(moments, of_reference),
        'smallest_class_share': float(shares.min()),
        'largest_class_share': float(shares.max()),
        'class_shares': shares.tolist(),
    }


def print_row(name, scores):
    *columns, shares = scores.values()
    print(f'{name:<12}' + ''.join(f'{value:7.3f}' for value in columns + shares))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f'Unknown arguments: {argv[1:]}.')
    if FLAGS.wide and FLAGS.dataset != 'fashion_mnist':
        raise app.UsageError('--wide is for garments: digits have a side, CIFAR-10 is always wide.')
    runs = [(workdir, *load(workdir)) for workdir in FLAGS.workdir]

    width = WIDEST if FLAGS.dataset == 'cifar10' else WIDE if FLAGS.wide else WIDTH
    params = load_or_train_classifier(FLAGS.classifier, FLAGS.dataset, FLAGS.data_dir, width)
    images, labels = read_split(FLAGS.dataset, 'test', FLAGS.data_dir)
    probabilities, features = predict(params, images)
    accuracy = float((probabilities.argmax(axis=-1) == labels).mean())
    print(f'Test accuracy of the classifier: {accuracy:.2%}.')
    if accuracy < MIN_ACCURACY[FLAGS.dataset]:
        raise ValueError(f'Not a classifier of {FLAGS.dataset}: {FLAGS.classifier}.')

    training_images, _ = read_split(FLAGS.dataset, f'train[:{FLAGS.num_samples}]', FLAGS.data_dir)
    _, reference = predict(params, training_images)

    names = ['p>=.9', 'p>=.99', 'mean p', 'prec', 'recall', 'fd', 'min', 'max']
    names += map(str, range(NUM_CLASSES))
    print(' ' * 12 + ''.join(f'{name:>7}' for name in names))
    test_scores = legibility(probabilities, features[: FLAGS.num_samples], reference)
    print_row('test', test_scores)

    for workdir, states, config in runs:
        num_steps = FLAGS.langevin_steps or config.langevin.num_steps
        langevin = dataclasses.replace(config.langevin, num_steps=num_steps)
        config = dataclasses.replace(config, langevin=langevin)
        keys = generate_keys(jax.random.key(FLAGS.seed))
        print(f'{workdir}, {num_steps} Langevin steps:')
        drawn = generate_by(keys, averaged(states), config, FLAGS.num_samples)
        results = {
            'dataset': FLAGS.dataset,
            'num_samples': FLAGS.num_samples,
            'seed': FLAGS.seed,
            'langevin_steps': num_steps,
            'classifier_accuracy': accuracy,
            'test': test_scores,
        }
        for name, samples in zip(sample_stages(config), drawn, strict=True):
            samples = at_size_of(training_images, samples)
            results[name] = legibility(*predict(params, samples), reference)
            print_row(name, results[name])
        name = 'legibility_wide.json' if FLAGS.wide else 'legibility.json'
        write_json(os.path.join(workdir, name), results)


if __name__ == '__main__':
    program.run(main)
