"""What the flags do, by hand."""

DRAWING = 'sample evaluate likelihood recover'
COMPUTING = f'train {DRAWING} geometry'
EVERYWHERE = f'{COMPUTING} report'
# By hand, from what the modes do; and a value that is right for each.
ACTS = {
    'workdir': (EVERYWHERE, 'run'),
    'mode': (EVERYWHERE, 'train'),
    'pretrained': ('sample recover', 'digits'),
    'debug': (EVERYWHERE, 'true'),
    'resume': ('train', 'strict'),
    'profile': ('train', 'true'),
    'tensorboard': ('train', 'true'),
    'num_samples': ('sample evaluate likelihood', '20'),
    # Chains of likelihood and of geometry's film begin at refined samples or end there.
    'langevin_steps': (f'{DRAWING} geometry', '3'),
    'step': (DRAWING, '3'),  # Geometry goes through all of them.
    'ema': (f'{DRAWING} geometry', 'true'),
    'interpolation': ('sample', 'spherical'),
    'split': ('sample evaluate', 'val'),
    'num_recoveries': ('sample evaluate recover', '2'),
    'inception_weights': ('evaluate', 'weights.npz'),
    'reference_split': ('evaluate', 'test'),
    'num_reference': ('evaluate', '20'),
    'num_temperatures': ('likelihood', '10'),
    'input': ('recover', 'photo.png'),
    'mask': ('recover', 'mask.png'),
    'output': ('sample recover', 'out.png'),
    'distributed': (COMPUTING, 'off'),
    'coordinator_address': (COMPUTING, 'host:1'),
    'num_processes': (COMPUTING, '2'),
    'process_id': (COMPUTING, '1'),
}
