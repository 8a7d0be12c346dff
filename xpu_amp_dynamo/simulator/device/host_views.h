// CPU tensors over the memory of simulated XPU tensors, and back.
#pragma once

#include "memory.h"

#include <unordered_map>

namespace simulated_xpu {

// The CPU tensors of one call. Tensors that share a storage share its CPU view, so that ops see their overlap;
// what the op does to the views (writes, resizes, new storages) reaches the XPU tensors with `write_back`.
class HostViews {
 public:
  at::Tensor to_host(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_xpu()) {
      return tensor;
    }
    check_dense(tensor);
    auto* impl = tensor.unsafeGetTensorImpl();
    if (const auto found = tensors_.find(impl); found != tensors_.end()) {
      return found->second.host;
    }
    at::Tensor host = make(to_host(tensor.storage()), at::DispatchKey::CPU, tensor);
    if (impl->is_wrapped_number()) {
      host.unsafeGetTensorImpl()->set_wrapped_number(true);
    }
    tensors_.emplace(impl, Pair{tensor, host});
    return host;
  }

  c10::Storage to_host(const c10::Storage& storage) {
    if (storage.device_type() != c10::kXPU) {
      return storage;
    }
    auto* key = storage.unsafeGetStorageImpl();
    auto found = storages_.find(key);
    if (found == storages_.end()) {
      c10::DataPtr view(storage.mutable_data(), c10::Device(c10::kCPU));
      c10::Storage host(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(view), c10::GetCPUAllocator(), true);
      xpu_of_.emplace(host.unsafeGetStorageImpl(), storage);
      found = storages_.emplace(key, host).first;
    }
    return found->second;
  }

  // Return a result of the op as an XPU tensor: an input again, a view of one, or new memory.
  at::Tensor to_xpu(const at::Tensor& result) {
    if (!result.defined() || !result.is_cpu()) {
      return result;
    }
    check_dense(result);
    c10::Storage storage = to_xpu(result.storage());
    for (const auto& [impl, pair] : tensors_) {
      if (pair.host.is_same(result)) {
        return pair.xpu;
      }
    }
    for (const auto& [impl, pair] : tensors_) {
      if (impl->storage().is_alias_of(storage)) {
        return with_form_of(result, at::detail::make_tensor<c10::TensorImpl>(
            c10::TensorImpl::VIEW, std::move(storage), impl->key_set(), result.dtype()));
      }
    }
    return make(std::move(storage), at::DispatchKey::XPU, result);
  }

  // Bring the XPU tensors up to date with their views.
  void write_back() {
    for (const auto& [impl, pair] : tensors_) {
      if (!pair.host.storage().is_alias_of(to_host(pair.xpu.storage()))) {
        impl->set_storage_keep_dtype(to_xpu(pair.host.storage()));
      }
      if (pair.host.sizes() != impl->sizes() || pair.host.strides() != impl->strides() ||
          pair.host.storage_offset() != impl->storage_offset()) {
        impl->set_storage_offset(pair.host.storage_offset());
        impl->set_sizes_and_strides(pair.host.sizes(), pair.host.strides());
      }
    }
    for (auto& [key, host] : storages_) {
      if (host.data() != key->data()) {
        const size_t bytes = host.nbytes();
        key->set_data_ptr_noswap(as_xpu_memory(host.set_data_ptr({nullptr, c10::Device(c10::kCPU)}), bytes));
        key->set_nbytes(bytes);
      }
    }
  }

 private:
  struct Pair {
    at::Tensor xpu, host;
  };

  static void check_dense(const at::Tensor& tensor) {
    TORCH_CHECK(
        tensor.layout() == at::kStrided,
        "the simulated XPU has dense tensors only, not ", tensor.layout(), "; use the CPU for these");
  }

  c10::Storage to_xpu(const c10::Storage& host) {
    const auto found = xpu_of_.find(host.unsafeGetStorageImpl());
    if (found != xpu_of_.end()) {
      return found->second;
    }
    const size_t bytes = host.nbytes();
    auto* owner = new c10::Storage(host);
    c10::DataPtr keeper(host.mutable_data(), owner, [](void* p) { delete static_cast<c10::Storage*>(p); }, kDevice);
    c10::Storage xpu(
        c10::Storage::use_byte_size_t(), bytes, as_xpu_memory(std::move(keeper), bytes), allocator(), true);
    xpu_of_.emplace(host.unsafeGetStorageImpl(), xpu);
    kept_.push_back(host);
    return xpu;
  }

  static at::Tensor make(c10::Storage storage, at::DispatchKey key, const at::Tensor& like) {
    return with_form_of(
        like, at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype()));
  }

  static at::Tensor with_form_of(const at::Tensor& like, at::Tensor tensor) {
    auto* impl = tensor.unsafeGetTensorImpl();
    impl->set_storage_offset(like.storage_offset());
    impl->set_sizes_and_strides(like.sizes(), like.strides());
    return tensor;
  }

  std::unordered_map<c10::TensorImpl*, Pair> tensors_;
  std::unordered_map<c10::StorageImpl*, c10::Storage> storages_;
  std::unordered_map<c10::StorageImpl*, c10::Storage> xpu_of_;
  std::vector<c10::Storage> kept_; // so that no address in xpu_of_ is used again
};

} // namespace simulated_xpu
