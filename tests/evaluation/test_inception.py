"""Inception-v3 against NumPy, layer by layer, and what its features are known to tell apart."""

import os
import re

import jax
import numpy as np
import pytest
from helpers.inception import inception_weights, random_port, write

from vaebm_jax.evaluation import inception, scores
from vaebm_jax.evaluation.inception import inception_features, load_inception
from vaebm_jax.evaluation.metrics import frechet_distance
from vaebm_jax.evaluation.scores import Scores, features_of
from vaebm_jax.runtime.errors import UserError


@pytest.fixture(scope='module')
def genuine():
    """The weights that there are of the network of 2015, up to 768 features."""
    if not os.environ.get('INCEPTION_WEIGHTS'):
        pytest.skip('INCEPTION_WEIGHTS names no file of Inception-v3')
    return load_inception(os.environ['INCEPTION_WEIGHTS'])


class InNumpy:
    """The PyTorch port's network in NumPy, from its state dict: channels first, batch norm on."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, stride=1, same=True):
        kernel = self.state[f'{name}.conv.weight']
        height, width = kernel.shape[2:]
        if same:
            pads = [(0, 0), (height // 2,) * 2, (width // 2,) * 2]
            x = np.pad(x, pads)
        windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
        windows = windows[:, ::stride, ::stride]
        x = np.einsum('chwij,ocij->ohw', windows, kernel, optimize=True)
        get = lambda kind: self.state[f'{name}.bn.{kind}'][:, None, None]
        x = (x - get('running_mean')) / np.sqrt(get('running_var') + 1e-3)
        return np.maximum(x * get('weight') + get('bias'), 0.0)

    def convs(self, x, *names):
        for name in names:
            x = self.conv(x, name)
        return x

    @staticmethod
    def windows(x):
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))

    def max_pool(self, x):
        return self.windows(x)[:, ::2, ::2].max((3, 4))

    def max_pool_same(self, x):
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
        return self.windows(padded).max((3, 4))

    def average_pool(self, x):
        pads = [(0, 0), (1, 1), (1, 1)]
        counts = self.windows(np.pad(np.ones_like(x), pads)).sum((3, 4))
        return self.windows(np.pad(x, pads)).sum((3, 4)) / counts

    def features(self, image):
        """`{width: [width]}` of one `[H, W, 3]` image."""
        result = {}
        x = (resized(image.astype(np.float64)) - 128.0) / 128.0
        x = self.conv(x.transpose(2, 0, 1), 'Conv2d_1a_3x3', 2, same=False)
        x = self.conv(x, 'Conv2d_2a_3x3', same=False)
        x = self.max_pool(self.conv(x, 'Conv2d_2b_3x3'))
        result[64] = x.mean((1, 2))
        x = self.conv(self.conv(x, 'Conv2d_3b_1x1'), 'Conv2d_4a_3x3', same=False)
        x = self.max_pool(x)
        result[192] = x.mean((1, 2))
        for name in ('Mixed_5b', 'Mixed_5c', 'Mixed_5d'):
            branch = lambda kind, name=name: f'{name}.branch{kind}'
            x = np.concatenate(
                [
                    self.convs(x, branch('1x1')),
                    self.convs(x, branch('5x5_1'), branch('5x5_2')),
                    self.convs(x, *(branch(f'3x3dbl_{i}') for i in (1, 2, 3))),
                    self.convs(self.average_pool(x), branch('_pool')),
                ]
            )
        tower = self.convs(x, 'Mixed_6a.branch3x3dbl_1', 'Mixed_6a.branch3x3dbl_2')
        tower = self.conv(tower, 'Mixed_6a.branch3x3dbl_3', 2, same=False)
        x = np.concatenate(
            [self.conv(x, 'Mixed_6a.branch3x3', 2, same=False), tower, self.max_pool(x)]
        )
        for name in ('Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e'):
            branch = lambda kind, name=name: f'{name}.branch{kind}'
            x = np.concatenate(
                [
                    self.convs(x, branch('1x1')),
                    self.convs(x, *(branch(f'7x7_{i}') for i in (1, 2, 3))),
                    self.convs(x, *(branch(f'7x7dbl_{i}') for i in (1, 2, 3, 4, 5))),
                    self.convs(self.average_pool(x), branch('_pool')),
                ]
            )
        result[768] = x.mean((1, 2))
        first = self.conv(
            self.conv(x, 'Mixed_7a.branch3x3_1'), 'Mixed_7a.branch3x3_2', 2, same=False
        )
        second = self.convs(x, *(f'Mixed_7a.branch7x7x3_{i}' for i in (1, 2, 3)))
        second = self.conv(second, 'Mixed_7a.branch7x7x3_4', 2, same=False)
        x = np.concatenate([first, second, self.max_pool(x)])
        for name, pool in (('Mixed_7b', self.average_pool), ('Mixed_7c', self.max_pool_same)):
            branch = lambda kind, name=name: f'{name}.branch{kind}'
            middle = self.conv(x, branch('3x3_1'))
            deep = self.convs(x, branch('3x3dbl_1'), branch('3x3dbl_2'))
            x = np.concatenate(
                [
                    self.conv(x, branch('1x1')),
                    self.conv(middle, branch('3x3_2a')),
                    self.conv(middle, branch('3x3_2b')),
                    self.conv(deep, branch('3x3dbl_3a')),
                    self.conv(deep, branch('3x3dbl_3b')),
                    self.conv(pool(x), branch('_pool')),
                ]
            )
        result[2048] = x.mean((1, 2))
        result[1008] = self.state['fc.weight'] @ result[2048]
        return result


def resized(image):
    """Pixel by pixel: out[i] lies at i * size / 299, between two pixels or on the last."""
    for axis in (0, 1):
        size = image.shape[axis]
        rows = []
        for i in range(299):
            low, part = divmod(i * size / 299, 1.0)
            low = int(low)
            take = lambda j, axis=axis, image=image: np.take(image, j, axis)
            rows.append(take(low) * (1 - part) + take(min(low + 1, size - 1)) * part)
        image = np.stack(rows, axis)
    return image


def test_every_width_against_numpy(tmp_path):
    """The converted port of random weights, through resizing, blocks, pools and classifier."""
    state = random_port()
    weights = load_inception(write(tmp_path / 'w.npz', inception_weights.converted(state)))
    image = np.random.default_rng(1).integers(0, 256, (1, 40, 31, 3), np.uint8)
    features = inception_features(weights, image)
    expected = InNumpy(state).features(image[0])
    assert sorted(features) == [64, 192, 768, 1008, 2048]
    for width, right in expected.items():
        scale = np.abs(right).max()
        np.testing.assert_allclose(features[width][0] / scale, right / scale, atol=2e-4)


def test_the_forms_for_a_cpu_have_the_features_of_the_plain_ones(tmp_path, monkeypatch):
    """To 1e-5 of their size, down to the logits; other platforms keep the plain forms."""
    weights = load_inception(write(tmp_path / 'w.npz', inception_weights.converted(random_port())))
    images = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    fast = inception_features(weights, images)
    monkeypatch.setattr(
        inception.lax, 'platform_dependent', lambda *arrays, cpu, default: default(*arrays)
    )
    plain = jax.jit(inception_features.__wrapped__)(weights, images)
    assert fast.keys() == plain.keys()
    for width, values in plain.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(fast[width] / scale, values / scale, atol=1e-5)


def test_a_cpu_gets_no_convolution_without_padding_and_none_of_one_pixel(tmp_path):
    """Both are several times slower there than what they are turned into."""
    weights = load_inception(write(tmp_path / 'w.npz', inception_weights.converted(random_port())))
    traced = inception_features.trace(weights, jax.ShapeDtypeStruct((8, 32, 32, 3), np.uint8))

    def convolutions(platform):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return [line for line in text.splitlines() if 'stablehlo.convolution' in line]

    def slow(lines):
        of_one_pixel = [line for line in lines if re.search(r'tensor<1x1x\d+x\d+xf32>\)', line)]
        return of_one_pixel, [line for line in lines if 'pad = [[0, 0], [0, 0]]' in line]

    of_one_pixel, unpadded = slow(convolutions('cuda'))
    assert (len(of_one_pixel), len(unpadded)) == (40, 47)  # 7 larger kernels go without padding.
    assert slow(convolutions('cpu')) == ([], [])


def test_batches_are_as_large_as_a_cpu_likes(tmp_path, monkeypatch):
    batches = []

    def counted(weights, images):
        batches.append(len(images))
        return {64: np.zeros((len(images), 64))}

    monkeypatch.setattr(scores, 'inception_features', counted)
    features = features_of({}, np.zeros((20, 8, 8, 1), np.uint8))
    assert batches == [8, 8, 8] and features[64].shape == (20, 64)


def test_grey_is_three_equal_channels(genuine):
    grey = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    for width, values in inception_features(genuine, grey).items():
        np.testing.assert_array_equal(
            values, inception_features(genuine, grey.repeat(3, -1))[width]
        )


def test_the_genuine_file_reaches_768(genuine):
    features = inception_features(genuine, np.zeros((1, 32, 32, 3), np.uint8))
    assert {width: values.shape for width, values in features.items()} == {
        width: (1, width) for width in (64, 192, 768)
    }


def test_a_file_that_ends_early_has_the_narrow_features(tmp_path):
    arrays = inception_weights.converted(random_port())
    stem = {name: value for name, value in arrays.items() if name.split('/')[0] in STEM}
    weights = load_inception(write(tmp_path / 'stem.npz', stem))
    assert sorted(inception_features(weights, np.zeros((1, 8, 8, 1), np.uint8))) == [64]


STEM = ('conv', 'conv_1', 'conv_2')


def test_files_that_are_none(tmp_path):
    arrays = inception_weights.converted(random_port())
    incomplete = {name: value for name, value in arrays.items() if 'mixed_5_tower' not in name}
    turned = arrays | {'conv_1/w': arrays['conv_1/w'].transpose(3, 2, 0, 1)}
    (tmp_path / 'text.npz').write_text('no arrays')
    for path, message in (
        (tmp_path / 'nowhere.npz', 'cannot be read.*No such file'),
        (tmp_path / 'text.npz', 'cannot be read.*not an .npz'),
        (write(tmp_path / 'other.npz', {'a/w': np.ones(3)}), 'layers are not those'),
        (write(tmp_path / 'incomplete.npz', incomplete), 'layers are not those'),
        (write(tmp_path / 'turned.npz', turned), 'layers are not those'),
    ):
        with pytest.raises(UserError, match=message) as raised:
            load_inception(path)
        assert '\n' not in str(raised.value)


def test_a_port_that_is_none():
    state = random_port()
    del state['Mixed_6d.branch7x7_2.bn.bias']
    with pytest.raises(UserError, match='Mixed_6d.branch7x7_2.bn.bias'):
        inception_weights.converted(state)


def test_the_tool_reads_a_file_of_pytorch(tmp_path):
    torch = pytest.importorskip('torch', reason='PyTorch writes the file that is to be read')
    state = random_port()
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    torch.save(tensors, tmp_path / 'port.pth')
    inception_weights.main(['', str(tmp_path / 'port.pth'), str(tmp_path / 'out.npz')])
    with np.load(tmp_path / 'out.npz') as file:
        for name, value in inception_weights.converted(state).items():
            np.testing.assert_array_equal(file[name], value)
    torch.save({'a': torch.nn.Linear(1, 1)}, tmp_path / 'code.pth')
    with pytest.raises(UserError, match='is not a state dict'):
        inception_weights.main(['', str(tmp_path / 'code.pth'), str(tmp_path / 'no.npz')])
    assert not (tmp_path / 'no.npz').exists()


def cifar10(split, count, labels=False):
    tfds = pytest.importorskip('tensorflow_datasets')
    if not os.environ.get('TFDS_DATA_DIR'):
        pytest.skip('TFDS_DATA_DIR is not set')
    source = tfds.data_source('cifar10', split=split, download=False)
    examples = source.__getitems__(range(count))
    images = np.stack([example['image'] for example in examples])
    return (images, np.array([example['label'] for example in examples])) if labels else images


def test_train_and_test_of_cifar10_are_near_and_nearer_with_more(genuine):
    """By the 64 features; noise of the same number of images is far."""
    stem = {layer: genuine[layer] for layer in STEM}

    def moments(images):
        gathered = Scores()
        gathered.add(features_of(stem, images))
        return gathered.moments[64]

    train, test = cifar10('train', 256), cifar10('test', 256)
    few = frechet_distance(moments(train[:64]), moments(test[:64]))
    many = frechet_distance(moments(train), moments(test))
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    assert 0.0 < many < few / 2
    assert frechet_distance(moments(noise), moments(test)) > 20 * many


@pytest.mark.slow
def test_linear_classification_of_cifar10(genuine):
    """Of 600 train images: 82 % of 300 test images by 768 features, 38 % by 192."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = {}
    for split, count in (('train', 600), ('test', 300)):
        images, labels = cifar10(split, count, labels=True)
        features[split] = (features_of(genuine, images), labels)
    for width, known in ((768, 0.82), (192, 0.38)):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        (train, train_labels), (test, test_labels) = features['train'], features['test']
        classifier.fit(train[width], train_labels)
        assert abs(classifier.score(test[width], test_labels) - known) < 0.06
