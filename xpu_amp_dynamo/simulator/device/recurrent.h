// Fused LSTM and GRU cells: PyTorch calls them for XPUs without asking, and has no CPU kernels of them.
#pragma once

#include "host_views.h"

namespace simulated_xpu {

using Optional = std::optional<at::Tensor>;
using Tensors3 = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Tensors5 = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

inline at::Tensor host_or_zeros(HostViews& views, const Optional& tensor, const at::Tensor& like) {
  return tensor && tensor->defined() ? views.to_host(*tensor) : at::zeros_like(like);
}

inline at::Tensor with_bias(HostViews& views, const at::Tensor& gates, const Optional& bias) {
  const at::Tensor host = views.to_host(gates);
  return bias && bias->defined() ? host + views.to_host(*bias) : host;
}

// As the kernels for GPUs do.
inline void check_one_dtype(const at::Tensor& first, const at::Tensor& second, const at::Tensor& third) {
  for (const auto& other : {second, third})
    TORCH_CHECK(
        other.scalar_type() == first.scalar_type(), "expected scalar type ", first.scalar_type(), " but found ",
        other.scalar_type());
}

inline at::Tensor sigmoid_gradient(const at::Tensor& grad, const at::Tensor& activated) {
  return grad * activated * (1 - activated);
}

inline at::Tensor tanh_gradient(const at::Tensor& grad, const at::Tensor& activated) {
  return grad * (1 - activated * activated);
}

// Returns the hidden state, the cell state, and the activated gates for the backward.
inline Tensors3 lstm_cell(
    const at::Tensor& input_gates, const at::Tensor& hidden_gates, const at::Tensor& cell, const Optional& input_bias,
    const Optional& hidden_bias) {
  check_one_dtype(input_gates, hidden_gates, cell);
  HostViews views;
  const auto gates =
      (with_bias(views, input_gates, input_bias) + with_bias(views, hidden_gates, hidden_bias)).chunk(4, 1);
  const at::Tensor in = gates[0].sigmoid(), forget = gates[1].sigmoid(), fresh = gates[2].tanh(),
                   out = gates[3].sigmoid();
  const at::Tensor next = forget * views.to_host(cell) + in * fresh;
  return {
      views.to_xpu(out * next.tanh()), views.to_xpu(next), views.to_xpu(at::cat({in, forget, fresh, out}, 1))};
}

inline Tensors3 lstm_cell_backward(
    const Optional& grad_hidden, const Optional& grad_next, const at::Tensor& cell, const at::Tensor& next,
    const at::Tensor& workspace, bool has_bias) {
  HostViews views;
  const auto gates = views.to_host(workspace).chunk(4, 1);
  const at::Tensor in = gates[0], forget = gates[1], fresh = gates[2], out = gates[3];
  const at::Tensor squashed = views.to_host(next).tanh();
  const at::Tensor grad_h = host_or_zeros(views, grad_hidden, squashed);
  const at::Tensor grad_c = tanh_gradient(grad_h * out, squashed) + host_or_zeros(views, grad_next, squashed);
  const at::Tensor grad_gates = at::cat(
      {sigmoid_gradient(grad_c * fresh, in), sigmoid_gradient(grad_c * views.to_host(cell), forget),
       tanh_gradient(grad_c * in, fresh), sigmoid_gradient(grad_h * squashed, out)},
      1);
  const at::Tensor grad_bias = has_bias ? grad_gates.sum(0) : at::Tensor();
  return {views.to_xpu(grad_gates), views.to_xpu(grad_c * forget), views.to_xpu(grad_bias)};
}

// Returns the hidden state, and what the backward needs: the activated gates, the state before and its new part.
inline std::tuple<at::Tensor, at::Tensor> gru_cell(
    const at::Tensor& input_gates, const at::Tensor& hidden_gates, const at::Tensor& hidden,
    const Optional& input_bias, const Optional& hidden_bias) {
  check_one_dtype(input_gates, hidden_gates, hidden);
  HostViews views;
  const auto from_input = with_bias(views, input_gates, input_bias).chunk(3, 1);
  const auto from_hidden = with_bias(views, hidden_gates, hidden_bias).chunk(3, 1);
  const at::Tensor reset = (from_input[0] + from_hidden[0]).sigmoid(), update = (from_input[1] + from_hidden[1]).sigmoid();
  const at::Tensor fresh = (from_input[2] + reset * from_hidden[2]).tanh(), before = views.to_host(hidden);
  return {
      views.to_xpu((before - fresh) * update + fresh),
      views.to_xpu(at::cat({reset, update, fresh, before, from_hidden[2]}, 1))};
}

inline Tensors5 gru_cell_backward(const at::Tensor& grad_hidden, const at::Tensor& workspace, bool has_bias) {
  HostViews views;
  const auto saved = views.to_host(workspace).chunk(5, 1);
  const at::Tensor reset = saved[0], update = saved[1], fresh = saved[2], before = saved[3], new_part = saved[4];
  const at::Tensor grad = views.to_host(grad_hidden);
  const at::Tensor grad_fresh = tanh_gradient(grad * (1 - update), fresh);
  const at::Tensor grad_update = sigmoid_gradient(grad * (before - fresh), update);
  const at::Tensor grad_reset = sigmoid_gradient(grad_fresh * new_part, reset);
  const at::Tensor to_input = at::cat({grad_reset, grad_update, grad_fresh}, 1);
  const at::Tensor to_hidden = at::cat({grad_reset, grad_update, grad_fresh * reset}, 1);
  return {
      views.to_xpu(to_input), views.to_xpu(to_hidden), views.to_xpu(grad * update),
      views.to_xpu(has_bias ? to_input.sum(0) : at::Tensor()), views.to_xpu(has_bias ? to_hidden.sum(0) : at::Tensor())};
}

} // namespace simulated_xpu
