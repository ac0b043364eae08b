"""As much of torch as the engine asks for on a GPU, for tests with GPUs that are not there."""


class cuda:
    """torch.cuda of a machine with a GPU."""

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def get_device_name():
        return "pretend GPU"

    @staticmethod
    def reset_peak_memory_stats():
        pass

    @staticmethod
    def max_memory_allocated():
        return 0


def get_num_threads():
    """As torch.get_num_threads."""
    return 1
