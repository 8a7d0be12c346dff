// Matrix products of float16 and bfloat16 that write float32: XPU builds have them, CPU builds do not.
#pragma once

#include <ATen/ops/addmm.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

namespace simulated_xpu {

inline void check_output_dtype(const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype) {
  const auto given = left.scalar_type();
  TORCH_CHECK(given == right.scalar_type(), "expected two matrices of one dtype, got ", given, " and ", right.scalar_type());
  TORCH_CHECK(
      dtype == given || (dtype == at::kFloat && (given == at::kHalf || given == at::kBFloat16)),
      "out_dtype must be that of the inputs, or float32 for float16 and bfloat16 inputs; got ", dtype, " for ", given);
}

inline at::Tensor mm(const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype) {
  check_output_dtype(left, right, dtype);
  return at::mm(left.to(dtype), right.to(dtype));
}

inline at::Tensor& mm_out(const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype, at::Tensor& out) {
  check_output_dtype(left, right, dtype);
  return at::mm_out(out, left.to(dtype), right.to(dtype));
}

inline at::Tensor bmm(const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype) {
  check_output_dtype(left, right, dtype);
  return at::bmm(left.to(dtype), right.to(dtype));
}

inline at::Tensor& bmm_out(const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype, at::Tensor& out) {
  check_output_dtype(left, right, dtype);
  return at::bmm_out(out, left.to(dtype), right.to(dtype));
}

inline at::Tensor addmm(
    const at::Tensor& self, const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype,
    const at::Scalar& beta, const at::Scalar& alpha) {
  check_output_dtype(left, right, dtype);
  return at::addmm(self.to(dtype), left.to(dtype), right.to(dtype), beta, alpha);
}

inline at::Tensor& addmm_out(
    const at::Tensor& self, const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype,
    const at::Scalar& beta, const at::Scalar& alpha, at::Tensor& out) {
  check_output_dtype(left, right, dtype);
  return at::addmm_out(out, self.to(dtype), left.to(dtype), right.to(dtype), beta, alpha);
}

inline at::Tensor baddbmm(
    const at::Tensor& self, const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype,
    const at::Scalar& beta, const at::Scalar& alpha) {
  check_output_dtype(left, right, dtype);
  return at::baddbmm(self.to(dtype), left.to(dtype), right.to(dtype), beta, alpha);
}

inline at::Tensor& baddbmm_out(
    const at::Tensor& self, const at::Tensor& left, const at::Tensor& right, at::ScalarType dtype,
    const at::Scalar& beta, const at::Scalar& alpha, at::Tensor& out) {
  check_output_dtype(left, right, dtype);
  return at::baddbmm_out(out, self.to(dtype), left.to(dtype), right.to(dtype), beta, alpha);
}

inline void register_products(torch::Library& aten) {
  aten.impl("mm.dtype", mm);
  aten.impl("mm.dtype_out", mm_out);
  aten.impl("bmm.dtype", bmm);
  aten.impl("bmm.dtype_out", bmm_out);
  aten.impl("addmm.dtype", addmm);
  aten.impl("addmm.dtype_out", addmm_out);
  aten.impl("baddbmm.dtype", baddbmm);
  aten.impl("baddbmm.dtype_out", baddbmm_out);
}

} // namespace simulated_xpu
