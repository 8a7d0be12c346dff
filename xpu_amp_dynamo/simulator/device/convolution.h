// Convolutions: XPU builds run them as `convolution_overrideable`, which CPU builds leave empty.
#pragma once

#include "host_views.h"

namespace simulated_xpu {

inline at::Tensor convolution(
    const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups) {
  HostViews views;
  const std::optional<at::Tensor> host_bias =
      bias && bias->defined() ? std::optional(views.to_host(*bias)) : std::nullopt;
  return views.to_xpu(at::convolution(
      views.to_host(input), views.to_host(weight), host_bias, stride, padding, dilation, transposed, output_padding,
      groups));
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups,
    std::array<bool, 3> mask) {
  HostViews views;
  const int64_t bias_size = transposed ? weight.size(1) * groups : weight.size(0);
  const auto [grad_input, grad_weight, grad_bias] = at::convolution_backward(
      views.to_host(grad), views.to_host(input), views.to_host(weight), at::IntArrayRef{bias_size}, stride, padding,
      dilation, transposed, output_padding, groups, mask);
  return {views.to_xpu(grad_input), views.to_xpu(grad_weight), views.to_xpu(grad_bias)};
}

} // namespace simulated_xpu
