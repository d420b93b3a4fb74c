"""Published tables of layers."""

from vaebm_jax.config.sections import NetworkConfig


def mnist_paper_network() -> NetworkConfig:
    """The authors' networks for 28x28x1: energy 1,625,188 and encoder 759,688 parameters."""
    return NetworkConfig(
        energy=(('conv', 64, 5, 2), ('conv', 128, 3, 2), ('conv', 256, 3, 1)),
        energy_outputs=100,
        encoder=(('conv', 64, 4, 2), ('conv', 64, 4, 2), ('conv', 64, 4, 1), ('dropout', 0.2)),
        decoder=(('map', 256), ('up', 128, 3), ('up', 64, 3)),
        init_std=0.005,
    )


def cifar10_paper_network() -> NetworkConfig:
    """The authors' networks for 32x32x3: energy 1,710,465 and encoder 4,393,800 parameters."""
    return NetworkConfig(
        energy=(('conv', 64, 3, 1), ('conv', 128, 4, 2), ('conv', 256, 4, 2), ('conv', 256, 4, 2)),
        encoder=(('conv', 64, 3, 1), ('conv', 128, 4, 2), ('conv', 256, 4, 2), ('conv', 512, 4, 2)),
        decoder=(('map', 256), ('up', 128, 3), ('up', 64, 3), ('up', 64, 3)),
        init_std=0.005,
    )


def recovery_network(image_size: int) -> NetworkConfig:
    """Networks with a condition, for images of 64, 128 or 256 pixels: a U-Net down to 4 pixels."""
    trunk, downs = {
        64: ((32, 64, 128), (32, 64, 96, 128)),
        128: ((32, 64, 128, 128), (32, 64, 96, 128, 128)),
        256: ((32, 64, 128, 256, 256), (32, 64, 128, 256, 256, 256)),
    }[image_size]
    ups = (*reversed(downs[:-1]), 16)
    return NetworkConfig(
        energy=tuple(('conv', features, 4, 2) for features in trunk),
        encoder=tuple(('conv', features, 4, 2) for features in trunk),
        decoder=(
            *(('down', features, 3) for features in downs),
            *(('up', features, 3) for features in ups),
        ),
        activation='silu',
    )
