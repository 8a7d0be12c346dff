// The simulated XPU: everything that stock CPU builds of PyTorch lack to have an "xpu" device, in host memory.
// `register_simulated_xpu` registers it for the life of the process, `simulated_xpu::set_active` turns it on and off.

#include "attention.h"
#include "backward_thread.h"
#include "convolution.h"
#include "fallback.h"
#include "host_views.h"
#include "memory.h"
#include "products.h"
#include "recurrent.h"
#include "runtime.h"
#include "softmax.h"

#include <ATen/EmptyTensor.h>
#include <torch/library.h>

namespace simulated_xpu {

static at::Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device> device,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  check_device(device.value_or(kDevice));
  TORCH_CHECK(active(), "the simulated XPU is off; tensors can be made inside `with xpu_amp_dynamo.simulated_xpu():`");
  return at::detail::empty_generic(
      size, allocator(), c10::DispatchKeySet(c10::DispatchKey::XPU), at::dtype_or_default(dtype), format);
}

static at::Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device> device, std::optional<bool>) {
  check_device(device.value_or(kDevice));
  TORCH_CHECK(active(), "the simulated XPU is off; tensors can be made inside `with xpu_amp_dynamo.simulated_xpu():`");
  return at::detail::empty_strided_generic(
      size, stride, allocator(), c10::DispatchKeySet(c10::DispatchKey::XPU), at::dtype_or_default(dtype));
}

static at::Tensor host_view(const at::Tensor& tensor) {
  return HostViews().to_host(tensor);
}

static void set_active(bool on) {
  if (on) {
    install_hooks();
    ensure_backward_thread();
  }
  active() = on;
}

static std::tuple<int64_t, int64_t> memory_in_use() {
  return {memory_use().current.load(), memory_use().peak.load()};
}

static void reset_peak_memory() {
  memory_use().peak = memory_use().current.load();
}

static void boxed_fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  run_on_host(op, stack);
}

// The library object registers for as long as it lives, which is as long as the process.
static torch::Library& library(torch::Library::Kind kind, const char* ns, std::optional<c10::DispatchKey> key) {
  return *new torch::Library(kind, ns, key, __FILE__, __LINE__);
}

// Structured ops without a kernel for a device get one made of their `out=` form, which allocates and warns
// otherwise than the CPU's own kernel.
static void register_as_on_cpu(torch::Library& aten) {
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const auto op = c10::Dispatcher::singleton().findSchema(name);
    if (op && op->operator_name().getNamespace() == "aten" && !op->hasKernelForDispatchKey(c10::DispatchKey::XPU) &&
        op->hasKernelForDispatchKey(c10::DispatchKey::CPU) &&
        op->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional)) {
      aten.impl(c10::toString(name).c_str(), torch::CppFunction::makeFromBoxedFunction<&boxed_fallback>());
    }
  }
}

static void register_device() {
  static c10::impl::DeviceGuardImplRegistrar guard(c10::kXPU, new Guard());
  c10::SetAllocator(c10::kXPU, allocator());
  const auto run_any = [] { return torch::CppFunction::makeFromBoxedFunction<&boxed_fallback>(); };
  library(torch::Library::IMPL, "_", c10::DispatchKey::XPU).fallback(run_any());

  auto& aten = library(torch::Library::IMPL, "aten", c10::DispatchKey::XPU);
  aten.impl("empty.memory_format", empty);
  aten.impl("empty_strided", empty_strided);
  aten.impl("copy_", run_any());
  aten.impl("record_stream", [](at::Tensor&, c10::Stream) {});  // there is one stream, which never lags behind
  aten.impl("convolution_overrideable", convolution);
  aten.impl("convolution_backward_overrideable", convolution_backward);
  aten.impl("scaled_dot_product_attention", scaled_dot_product_attention);
  aten.impl("_scaled_dot_product_fused_attention_overrideable", fused_attention);
  aten.impl("_scaled_dot_product_fused_attention_overrideable_backward", fused_attention_backward);

  register_products(aten);
  register_softmax(aten);
  aten.impl("_thnn_fused_lstm_cell", lstm_cell);
  aten.impl("_thnn_fused_lstm_cell_backward_impl", lstm_cell_backward);
  aten.impl("_thnn_fused_gru_cell", gru_cell);
  aten.impl("_thnn_fused_gru_cell_backward", gru_cell_backward);
  register_as_on_cpu(aten);

  auto& autograd = library(torch::Library::IMPL, "aten", c10::DispatchKey::AutogradXPU);
  autograd.impl("scaled_dot_product_attention", scaled_dot_product_attention);

  auto& own = library(torch::Library::DEF, "simulated_xpu", std::nullopt);
  own.def("host_view(Tensor(a) tensor) -> Tensor(a)");
  own.def("default_generator() -> Generator?", [] { return default_generator(); });
  own.def("set_active(bool on) -> ()", set_active);
  own.def("memory_in_use() -> (int, int)", memory_in_use);
  own.def("reset_peak_memory() -> ()", reset_peak_memory);
  library(torch::Library::IMPL, "simulated_xpu", c10::DispatchKey::XPU).impl("host_view", host_view);
}

} // namespace simulated_xpu

// Register everything; return null, or why it failed: another torch may have ops of other signatures.
extern "C" const char* register_simulated_xpu() {
  static std::string error;
  try {
    simulated_xpu::register_device();
    return nullptr;
  } catch (const c10::Error& exception) {
    error = exception.what_without_backtrace();
  } catch (const std::exception& exception) {
    error = exception.what();
  }
  return error.c_str();
}
