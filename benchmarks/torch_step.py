"""The training step in PyTorch, as one would write it there: the peer of step_time.py.

It runs as a process of its own, in any Python that has PyTorch (JAX need not be there), and takes
turns: a line on standard input names a part (chain, energy, vae or step), a JSON line with its wall
and CPU time in milliseconds answers. Networks, batch, chains, Langevin steps and optimizers are
those of the config that it is given; noise comes from PyTorch's own generator.
"""

import argparse
import copy
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


class Trunk(nn.Sequential):
    """An image to features, by the rows of a bottom-up table."""

    def __init__(self, rows, activation, size, channels):
        layers = []
        for kind, *sizes in rows:
            if kind == 'conv':
                features, kernel, stride = sizes
                after = -(-size // stride)
                pad = max((after - 1) * stride + kernel - size, 0)
                if pad % 2:
                    layers.append(nn.ZeroPad2d((pad // 2, pad - pad // 2) * 2))
                    pad = 0
                layers += [nn.Conv2d(channels, features, kernel, stride, pad // 2), activation()]
                channels, size = features, after
            elif kind == 'dense':
                layers += [nn.Flatten(), nn.Linear(channels * size**2, sizes[0]), activation()]
                channels, size = sizes[0], 1
            else:
                layers.append(nn.Dropout(sizes[0]))
        super().__init__(*layers, nn.Flatten())
        self.num_features = channels * size**2


class Energy(nn.Module):
    """f(x), `[B]`."""

    def __init__(self, network, activation, size, channels):
        super().__init__()
        self.trunk = Trunk(network['energy'], activation, size, channels)
        self.head = nn.Linear(self.trunk.num_features, network['energy_outputs'])

    def forward(self, x):
        return self.head(self.trunk(x)).float().sum(1)


class Encoder(nn.Module):
    """Mean and log variance of z."""

    def __init__(self, network, activation, size, channels, latent_dim):
        super().__init__()
        self.trunk = Trunk(network['encoder'], activation, size, channels)
        self.heads = nn.Linear(self.trunk.num_features, 2 * latent_dim)

    def forward(self, x):
        return self.heads(self.trunk(x)).float().chunk(2, dim=1)


class Decoder(nn.Module):
    """Images in (-1, 1)."""

    def __init__(self, network, activation, size, channels, latent_dim):
        super().__init__()
        rows = network['decoder']
        self.shape = (channels, size, size)
        first = -(-size // 2 ** sum(kind == 'up' for kind, *_ in rows))
        features, layers, is_map = latent_dim, [], False
        for kind, width, *kernel in rows:
            if kind == 'dense':
                layers.append(nn.Linear(features, width))
            elif kind == 'map':
                layers.append(nn.Linear(features, width * first**2))
                layers.append(nn.Unflatten(1, (width, first, first)))
                is_map = True
            else:
                outputs = 4 * width if kind == 'up' else width
                layers.append(nn.Conv2d(features, outputs, kernel[0], padding='same'))
                if kind == 'up':
                    layers.append(nn.PixelShuffle(2))
            if is_map and network['decoder_norm'] == 'group':
                layers.append(nn.GroupNorm(min(8, width), width, eps=1e-6))
            layers.append(activation())
            features = width
        self.layers = nn.Sequential(*layers)
        if is_map:
            self.head = nn.Conv2d(features, channels, 3, padding=1)
        else:
            self.head = nn.Linear(features, channels * size**2)

    def forward(self, z):
        x = self.layers(z)
        if x.ndim == 4:
            extra = x.shape[-1] - self.shape[-1]
            before = extra // 2
            x = x[..., before : x.shape[-2] - extra + before, before : x.shape[-1] - extra + before]
        return torch.tanh(self.head(x).float()).view(-1, *self.shape)


class Step:
    """The three networks, their optimizers, and the parts of a training iteration."""

    def __init__(self, config, dtype, compiled, device):
        self.config, self.device = config, device
        is_cuda = device == 'cuda'
        network, latent_dim = config['network'], config['latent_dim']
        data = config['data']
        self.shape = (data['num_channels'], data['image_size'], data['image_size'])
        activation = nn.SiLU if network['activation'] == 'silu' else lambda: nn.LeakyReLU(0.2)
        image = (network, activation, data['image_size'], data['num_channels'])
        self.models = nn.ModuleList(
            [Energy(*image), Encoder(*image, latent_dim), Decoder(*image, latent_dim)]
        ).to(device, memory_format=torch.channels_last)
        self.averages = copy.deepcopy(self.models)
        self.energy, self.encoder, self.decoder = (
            torch.compile(model) if compiled else model for model in self.models
        )
        adam = lambda section, *models: torch.optim.Adam(
            [parameter for model in models for parameter in model.parameters()],
            config[section]['learning_rate'],
            (config[section]['adam_b1'], 0.999),
            fused=is_cuda,
            capturable=is_cuda,
        )
        self.energy_adam = adam('energy', self.models[0])
        self.vae_adam = adam('vae', *self.models[1:])
        self.autocast = torch.autocast(device, torch.bfloat16, dtype == 'bfloat16')
        self.num_chains = config['num_chains'] or config['batch_size']
        self.batch = self.noise(config['batch_size']).clamp(-1, 1)
        self.samples = self.noise(self.num_chains).clamp(-1, 1)

    def noise(self, count):
        noise = torch.randn(count, *self.shape, device=self.device)
        return noise.contiguous(memory_format=torch.channels_last)

    def potential(self, x):
        std, scale, mean = (
            self.config['energy'][name] for name in ('reference_std', 'scale', 'reference_mean')
        )
        with self.autocast:
            f = self.energy(x)
        if not std:
            return -scale * f
        return (x - mean).square().flatten(1).sum(1) / (2 * std**2) - (scale or std**-2) * f

    def chain(self, x=None):
        x = self.samples if x is None else x
        langevin = self.config['langevin']
        half_square = 0.5 * langevin['step_size'] ** 2
        for _ in range(langevin['num_steps']):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.potential(x).sum(), x)
            drift = half_square * gradient
            if langevin['max_element_drift']:
                drift = drift.clamp(-langevin['max_element_drift'], langevin['max_element_drift'])
            if langevin['max_drift']:
                length = drift.flatten(1).norm(dim=1).clamp(min=1e-30)
                drift = drift * (langevin['max_drift'] / length).clamp(max=1)[:, None, None, None]
            x = x.detach() - drift
            if langevin['noise_scale']:
                x = x + langevin['step_size'] * langevin['noise_scale'] * torch.randn_like(x)
        return x

    def update_energy(self, samples=None):
        samples = self.samples if samples is None else samples
        self.energy_adam.zero_grad(set_to_none=True)
        loss = self.potential(self.batch).mean() - self.potential(samples).mean()
        loss.backward()
        self.energy_adam.step()
        self.average(0)

    def update_vae(self, samples=None):
        samples = self.samples if samples is None else samples
        self.vae_adam.zero_grad(set_to_none=True)
        with self.autocast:
            mean, log_variance = self.encoder(samples)
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            reconstruction = self.decoder(z)
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        distortion = F.mse_loss(reconstruction, samples, reduction='none').flatten(1).sum(1)
        (distortion + self.config['vae']['kl_weight'] * rate).mean().backward()
        self.vae_adam.step()
        self.average(1)
        self.average(2)

    @torch.no_grad()
    def average(self, index):
        if self.config['ema_decay']:
            torch._foreach_lerp_(
                list(self.averages[index].parameters()),
                list(self.models[index].parameters()),
                1 - self.config['ema_decay'],
            )

    def step(self):
        z = torch.randn(self.num_chains, self.config['latent_dim'], device=self.device)
        with torch.no_grad(), self.autocast:
            guess = self.decoder(z)
        refined = self.chain(guess)
        self.update_energy(refined)
        self.update_vae(refined)


def recorded(part):
    """The part as one CUDA graph: no launch waits for Python any more."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            part()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        part()
    return graph.replay


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', required=True, help='the experiment as JSON')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    parser.add_argument('--compile', action='store_true', help='torch.compile the networks')
    parser.add_argument('--graphs', action='store_true', help='each part as one CUDA graph')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=2)
    flags = parser.parse_args()

    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    if flags.device == 'cuda':
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    step = Step(json.loads(flags.config), flags.dtype, flags.compile, flags.device)
    parts = {
        'chain': step.chain,
        'energy': step.update_energy,
        'vae': step.update_vae,
        'step': step.step,
    }
    if flags.graphs:
        parts = {name: recorded(part) for name, part in parts.items()}
    print(json.dumps({'torch': torch.__version__}), flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        parts[line.strip()]()
        if flags.device == 'cuda':
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answer = {'ms': 1e3 * wall, 'cpu_ms': 1e3 * cpu}
        if flags.device == 'cuda':
            answer['peak_bytes'] = torch.cuda.max_memory_allocated()
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
