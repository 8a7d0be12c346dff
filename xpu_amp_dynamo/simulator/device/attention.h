// Fused attention: XPU builds choose it through a dispatch stub that CPU builds lack, and run it in oneDNN.
// The choice follows aten/src/ATen/native/mkldnn/xpu/Attention.cpp of torch 2.10: fused for 4-d float32, bfloat16
// and float16 without dropout, heads of up to 576 features, no gradient of a mask or of grouped key heads.
#pragma once

#include "host_views.h"

#include <ATen/Context.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>

#include <array>

namespace simulated_xpu {

inline bool heads_fit(const sdp::sdp_params& call) {
  const auto features = call.query.sym_size(-1);
  return features == call.key.sym_size(-1) && features <= 576 && call.value.sym_size(-1) <= 576;
}

inline bool gradients_fit(const sdp::sdp_params& call) {
  const bool mask_needs_gradient = call.attn_mask.has_value() && call.attn_mask->requires_grad();
  const bool needs_gradient = call.query.requires_grad() || call.key.requires_grad() || call.value.requires_grad();
  const auto heads = call.query.sym_size(-3);
  const bool grouped = heads != call.key.sym_size(-3) || heads != call.value.sym_size(-3);
  return !at::GradMode::is_enabled() || (!mask_needs_gradient && !(needs_gradient && grouped));
}

inline bool may_fuse(const sdp::sdp_params& call) {
  constexpr std::array<at::ScalarType, 3> dtypes{at::kFloat, at::kBFloat16, at::kHalf};
  const auto& settings = at::globalContext();
  return (settings.userEnabledOverrideableSDP() || settings.userEnabledFlashSDP()) &&
      sdp::check_nested_tensor(call, false) && sdp::check_for_dropout(call, false) &&
      sdp::check_tensor_shapes(call, false) && sdp::check_batch_size_and_num_heads_dense<true>(call, false) &&
      sdp::check_attn_mask_shape(call, false) && sdp::check_nonzero_sequence_lengths_dense(call, false) &&
      sdp::check_last_dim_stride_equals_1_dense<false>(call, false) && heads_fit(call) && gradients_fit(call) &&
      sdp::check_tensor_dtype(call, dtypes, false);
}

inline at::Tensor scaled_dot_product_attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const std::optional<at::Tensor>& mask,
    double dropout, bool causal, std::optional<double> scale, bool grouped) {
  std::optional<at::Tensor> bias = mask;
  if (mask && mask->defined() && mask->scalar_type() == at::kBool) {
    const auto zero = at::zeros({}, query.options());
    bias = at::where(*mask, zero, at::full({}, -std::numeric_limits<double>::infinity(), query.options()));
  }
  const sdp::sdp_params call{query, key, value, bias, dropout, causal, grouped};
  if (!may_fuse(call)) {
    TORCH_CHECK(
        at::globalContext().userEnabledMathSDP(),
        "no backend of scaled_dot_product_attention is enabled that takes these inputs; enable SDPBackend.MATH");
    return std::get<0>(at::_scaled_dot_product_attention_math(
        query, key, value, bias, dropout, causal, std::nullopt, scale, grouped));
  }
  return std::get<0>(at::_scaled_dot_product_fused_attention_overrideable(
      query, key, value, bias, dropout, causal, false, scale));
}

using FusedAttentionResult = std::tuple<
    at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor, at::Tensor, at::Tensor>;

// The arithmetic of one fused attention on the host, in float32.
struct Attention {
  at::Tensor query, key, value, bias;
  double scale;
  bool causal;

  Attention(
      const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias_, bool causal_,
      std::optional<double> scale_)
      : query(q.to(at::kFloat)),
        key(spread(k, q.size(1)).to(at::kFloat)),
        value(spread(v, q.size(1)).to(at::kFloat)),
        bias(bias_),
        scale(scale_.value_or(1.0 / std::sqrt(static_cast<double>(q.size(-1))))),
        causal(causal_) {}

  // Repeat grouped heads, one for each query head.
  static at::Tensor spread(const at::Tensor& heads, int64_t count) {
    return heads.repeat_interleave(count / heads.size(1), 1);
  }

  at::Tensor logits() const {
    at::Tensor logits = at::matmul(query, key.mT()) * scale;
    if (bias.defined()) {
      logits = logits + bias.to(at::kFloat);
    }
    if (causal) {
      const auto allowed = at::ones({query.size(2), key.size(2)}, at::kBool).tril();
      logits = logits.masked_fill(allowed.logical_not(), -std::numeric_limits<float>::infinity());
    }
    return logits;
  }
};

// Allocate the output: the query's shape with the value's features, its dimensions in the query's order.
inline at::Tensor empty_in_layout_of(const at::Tensor& query, int64_t features) {
  std::vector<int64_t> order{0, 1, 2, 3}, sizes = query.sizes().vec(), strides(4);
  sizes[3] = features;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return query.stride(a) > query.stride(b); });
  int64_t stride = 1;
  for (auto dim = order.rbegin(); dim != order.rend(); ++dim) {
    strides[*dim] = stride;
    stride *= sizes[*dim];
  }
  return at::empty_strided(sizes, strides, query.options());
}

inline FusedAttentionResult fused_attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const std::optional<at::Tensor>& bias,
    double, bool causal, bool, std::optional<double> scale) {
  HostViews views;
  const Attention attention(
      views.to_host(query), views.to_host(key), views.to_host(value), views.to_host(bias.value_or(at::Tensor())),
      causal, scale);
  const at::Tensor logits = attention.logits();
  // A query that may look at nothing gives zeros, as in oneDNN, not the NaN of 0/0.
  const at::Tensor weights = at::nan_to_num(at::softmax(logits, -1), 0.0);
  const at::Tensor output = empty_in_layout_of(query, value.size(3));
  views.to_host(output).copy_(at::matmul(weights, attention.value));
  const at::Tensor seed = at::empty({}, query.options().dtype(at::kLong));
  return {output, views.to_xpu(at::logsumexp(logits, -1)), {}, {}, query.size(2), key.size(2), seed, seed, {}};
}

// Return a tensor in the layout of another, with the gradient of it on the host; add up the gradients of heads that
// shared one.
inline at::Tensor gradient_of(HostViews& views, const at::Tensor& tensor, const at::Tensor& gradient) {
  at::Tensor result = at::empty_like(tensor);
  views.to_host(result).copy_(gradient.unflatten(1, {tensor.size(1), -1}).sum(2));
  return result;
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> fused_attention_backward(
    const at::Tensor& grad_output, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& bias, std::array<bool, 4>, const at::Tensor& output, const at::Tensor& logsumexp,
    const at::Tensor&, const at::Tensor&, c10::SymInt, c10::SymInt, double, bool causal, const at::Tensor&, const at::Tensor&,
    std::optional<double> scale) {
  HostViews views;
  const Attention attention(
      views.to_host(query), views.to_host(key), views.to_host(value), views.to_host(bias), causal, scale);
  const at::Tensor grad = views.to_host(grad_output).to(at::kFloat);
  const at::Tensor weights = at::nan_to_num(at::exp(attention.logits() - views.to_host(logsumexp).unsqueeze(-1)), 0.0);
  const at::Tensor along_output = (grad * views.to_host(output).to(at::kFloat)).sum(-1, true);
  const at::Tensor grad_logits = weights * (at::matmul(grad, attention.value.mT()) - along_output) * attention.scale;
  return {
      gradient_of(views, query, at::matmul(grad_logits, attention.key)),
      gradient_of(views, key, at::matmul(grad_logits.mT(), attention.query)),
      gradient_of(views, value, at::matmul(weights.mT(), grad)),
      {}};
}

} // namespace simulated_xpu
