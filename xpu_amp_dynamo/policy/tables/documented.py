"""The op lists that Intel's documentation of ``torch.xpu.amp`` gives.

Source: "Auto Mixed Precision (AMP)" of Intel Extension for PyTorch, section "Op-Specific Behavior".
"""

LOWER_PRECISION = (
    "conv1d",
    "conv2d",
    "conv3d",
    "bmm",
    "baddbmm",
    "addmm",
    "linear",
    "matmul",
    "_convolution",
    "convolution",
)

FLOAT32 = (
    "log_softmax",
    "nll_loss",
    "nll_loss_nd",
    "cross_entropy_loss",
    "fft_fft",
    "fft_ifft",
    "fft_fft2",
    "fft_ifft2",
    "fft_fftn",
    "fft_ifftn",
    "fft_rfft",
    "fft_irfft",
    "fft_rfft2",
    "fft_irfft2",
    "fft_rfftn",
    "fft_irfftn",
    "fft_hfft",
    "fft_ihfft",
)

PROMOTE = (
    "cat",
    "stack",
)
