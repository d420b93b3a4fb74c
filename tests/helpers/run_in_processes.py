r"""Run by test_distributed.py, once a process: trains together with the others, to npz.

    python -m helpers.run_in_processes \
        FOLDER COORDINATOR NUM_PROCESSES PROCESS_ID NUM_STEPS float32|float64
"""

import sys

from helpers.run_on_devices import CONFIGS, fresh_states, save, train
from vaebm_jax.data.loading import load_images
from vaebm_jax.runtime import distributed
from vaebm_jax.training.parallel import all_devices


def main(folder, coordinator, num_processes, process_id, num_steps, dtype):
    distributed.initialize('explicit', coordinator, int(num_processes), int(process_id))
    config = CONFIGS['dense']
    fresh = fresh_states(config, dtype)
    images = load_images(config.data)
    result = train(config, fresh, images, int(num_steps), all_devices(), 1)
    save(f'{folder}/{process_id}.npz', *result)


if __name__ == '__main__':
    main(*sys.argv[1:])
