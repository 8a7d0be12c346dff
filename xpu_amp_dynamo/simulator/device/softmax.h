// Softmax of float16 and bfloat16 that gives float32, which CPU builds refuse: from torch 2.14 on, softmax with
// `dtype=torch.float32` calls it on XPUs, as it does on CUDA.
#pragma once

#include "host_views.h"

#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/_log_softmax_backward_data.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <torch/library.h>

namespace simulated_xpu {

using Forward = at::Tensor (*)(const at::Tensor&, int64_t, bool);
using Backward = at::Tensor (*)(const at::Tensor&, const at::Tensor&, int64_t, at::ScalarType);

template <Forward on_host>
at::Tensor softmax(const at::Tensor& input, int64_t dim, bool half_to_float) {
  const auto given = input.scalar_type();
  TORCH_CHECK(
      !half_to_float || given == at::kHalf || given == at::kBFloat16,
      "softmax converts float16 and bfloat16 to float32, got ", given);
  HostViews views;
  const at::Tensor host = views.to_host(input);
  return views.to_xpu(on_host(half_to_float ? host.to(at::kFloat) : host, dim, false));
}

template <Backward on_host>
at::Tensor softmax_backward(
    const at::Tensor& grad_output, const at::Tensor& output, int64_t dim, at::ScalarType input_dtype) {
  HostViews views;
  const at::Tensor gradient = on_host(views.to_host(grad_output), views.to_host(output), dim, output.scalar_type());
  return views.to_xpu(gradient.to(input_dtype));
}

inline void register_softmax(torch::Library& aten) {
  aten.impl("_softmax", softmax<at::_softmax>);
  aten.impl("_log_softmax", softmax<at::_log_softmax>);
  aten.impl("_softmax_backward_data", softmax_backward<at::_softmax_backward_data>);
  aten.impl("_log_softmax_backward_data", softmax_backward<at::_log_softmax_backward_data>);
}

} // namespace simulated_xpu
