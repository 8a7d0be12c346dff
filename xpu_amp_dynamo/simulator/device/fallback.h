// Runs any op on simulated XPU tensors by its CPU kernel, in place over the same memory.
#pragma once

#include "host_views.h"
#include "runtime.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <string_view>

namespace simulated_xpu {

// Lends the state of a generator to a CPU generator while an op draws from it.
class LentGenerator {
 public:
  LentGenerator(at::Generator lender, at::Generator borrower) : lender_(std::move(lender)), borrower_(std::move(borrower)) {
    saved_ = borrower_.get_state();
    borrower_.set_state(lender_.get_state());
  }
  ~LentGenerator() {
    lender_.set_state(borrower_.get_state());
    borrower_.set_state(saved_);
  }
  LentGenerator(const LentGenerator&) = delete;
  LentGenerator& operator=(const LentGenerator&) = delete;

 private:
  at::Generator lender_, borrower_;
  at::Tensor saved_;
};

// Ops that a real XPU accepts CPU tensors in, beside its own.
inline bool may_mix_devices(std::string_view name) {
  for (const std::string_view allowed : {"aten::copy_", "aten::_copy_from", "aten::index", "aten::_index_put",
                                         "aten::set_", "aten::_fused_", "aten::_foreach_", "aten::_amp_"}) {
    if (name.substr(0, allowed.size()) == allowed) {
      return true;
    }
  }
  return false;
}

// Replaces the XPU's tensors, storages, devices and generators among the arguments by the CPU's.
class Arguments {
 public:
  explicit Arguments(const c10::OperatorHandle& op)
      : draws_random_numbers(op.hasTag(at::Tag::nondeterministic_seeded)), op_(op) {}

  c10::IValue to_host(const c10::IValue& value) {
    if (value.isTensor()) {
      return to_host(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> hosts;
      for (const at::Tensor& tensor : value.toTensorList()) {
        hosts.push_back(to_host(tensor));
      }
      return hosts;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> hosts;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
        hosts.push_back(tensor ? std::optional(to_host(*tensor)) : tensor);
      }
      return hosts;
    }
    if (value.isStorage()) {
      return views.to_host(value.toStorage());
    }
    if (value.isDevice() && value.toDevice().is_xpu()) {
      return c10::Device(c10::kCPU);
    }
    if (value.isGenerator() && value.toGenerator().device().is_xpu()) {
      generator = value.toGenerator();
      draws_random_numbers = true;
      return c10::IValue();
    }
    return value;
  }

  void check_devices() const {
    TORCH_CHECK(
        !foreign_ || !own_ || may_mix_devices(op_.schema().name()),
        "Expected all tensors to be on the same device, but ", op_.schema().name(),
        " got tensors of xpu:0 and of cpu; move them to one device with .to()");
  }

  HostViews views;
  at::Generator generator = default_generator();
  bool draws_random_numbers;

 private:
  at::Tensor to_host(const at::Tensor& tensor) {
    own_ |= tensor.defined() && tensor.is_xpu();
    foreign_ |= tensor.defined() && tensor.is_cpu() && tensor.dim() > 0;
    return views.to_host(tensor);
  }

  const c10::OperatorHandle& op_;
  bool own_ = false, foreign_ = false;
};

inline c10::IValue result_to_xpu(HostViews& views, const c10::IValue& value) {
  if (value.isTensor()) {
    return views.to_xpu(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> results;
    for (const at::Tensor& tensor : value.toTensorList()) {
      results.push_back(views.to_xpu(tensor));
    }
    return results;
  }
  return value;
}

inline void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const size_t first = stack->size() - count;
  Arguments arguments(op);
  for (size_t i = first; i < stack->size(); ++i) {
    (*stack)[i] = arguments.to_host((*stack)[i]);
  }
  arguments.check_devices();
  {
    // An autocast region of the CPU around the call is not about this device.
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    std::optional<LentGenerator> random;
    if (arguments.draws_random_numbers) {
      random.emplace(arguments.generator, at::detail::getDefaultCPUGenerator());
    }
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  arguments.views.write_back();
  for (size_t i = stack->size() - op.schema().returns().size(); i < stack->size(); ++i) {
    (*stack)[i] = result_to_xpu(arguments.views, (*stack)[i]);
  }
}

} // namespace simulated_xpu
