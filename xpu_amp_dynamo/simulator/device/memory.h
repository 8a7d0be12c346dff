// Host memory that claims to be an XPU's: the allocator, and how much of it is in use.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>

namespace simulated_xpu {

inline const c10::Device kDevice{c10::kXPU, 0};

struct MemoryUse {
  std::atomic<int64_t> current{0};
  std::atomic<int64_t> peak{0};

  void add(int64_t bytes) {
    const int64_t now = current += bytes;
    int64_t before = peak.load();
    while (before < now && !peak.compare_exchange_weak(before, now)) {
    }
  }
};

inline MemoryUse& memory_use() {
  static MemoryUse use;
  return use;
}

// What an XPU storage owns: host memory, counted while it lives.
struct HostMemory {
  c10::DataPtr data;
  size_t bytes;

  HostMemory(c10::DataPtr data_, size_t bytes_) : data(std::move(data_)), bytes(bytes_) {
    memory_use().add(static_cast<int64_t>(bytes));
  }
  ~HostMemory() {
    memory_use().add(-static_cast<int64_t>(bytes));
  }
  static void destroy(void* self) {
    delete static_cast<HostMemory*>(self);
  }
};

// Relabel host memory as the XPU's; it is freed with the result.
inline c10::DataPtr as_xpu_memory(c10::DataPtr host, size_t bytes) {
  void* data = host.get();
  return {data, new HostMemory(std::move(host), bytes), &HostMemory::destroy, kDevice};
}

struct HostMemoryAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    return as_xpu_memory(c10::GetCPUAllocator()->allocate(bytes), bytes);
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

inline c10::Allocator* allocator() {
  static HostMemoryAllocator instance;
  return &instance;
}

} // namespace simulated_xpu
