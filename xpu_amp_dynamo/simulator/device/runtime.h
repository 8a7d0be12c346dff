// What PyTorch asks of a device type apart from its ops: guard, streams, generators, hooks.
#pragma once

#include "memory.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/XPUHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>
#include <new>

namespace simulated_xpu {

// Whether the simulation is on. The library cannot be unloaded, so it plays dead when it is not.
inline std::atomic<bool>& active() {
  static std::atomic<bool> flag{false};
  return flag;
}

inline void check_device(c10::Device device) {
  TORCH_CHECK(
      device.is_xpu() && device.index() <= 0,
      "the simulated XPU is one device, xpu:0; ", device, " does not exist");
}

// One device, one stream; all work is done when a call returns.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  using Clock = std::chrono::steady_clock;

  c10::DeviceType type() const override { return c10::kXPU; }
  c10::Device exchangeDevice(c10::Device device) const override {
    check_device(device);
    return kDevice;
  }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device device) const override { check_device(device); }
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return active() ? 1 : 0; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream getDefaultStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream getNewStream(c10::Device, int) const override { return c10::Stream(c10::Stream::DEFAULT, kDevice); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(c10::DeviceIndex) const override {}

  void record(void** event, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {
    if (*event == nullptr) {
      *event = new Clock::time_point;
    }
    *static_cast<Clock::time_point*>(*event) = Clock::now();
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<Clock::time_point*>(event);
  }
  double elapsedTime(void* start, void* end, c10::DeviceIndex) const override {
    using Milliseconds = std::chrono::duration<double, std::milli>;
    return Milliseconds(*static_cast<Clock::time_point*>(end) - *static_cast<Clock::time_point*>(start)).count();
  }
};

// A CPU generator that says it belongs to the XPU. Its numbers are those of a CPU generator.
struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(uint64_t seed = c10::default_rng_seed_val) : CPUGeneratorImpl(seed) {
    device_ = kDevice;
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::XPU);
  }
  std::shared_ptr<Generator> clone() const { return std::shared_ptr<Generator>(clone_impl()); }

 private:
  Generator* clone_impl() const override {
    auto* copy = new Generator();
    copy->set_state(*get_state());
    return copy;
  }
};

inline at::Generator& default_generator() {
  static at::Generator generator = at::make_generator<Generator>();
  return generator;
}

// PyTorch makes its hooks once, on first use, and keeps them; hence no members, and the hooks can take the
// place of those already made.
struct XPUHooks final : at::XPUHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return active(); }
  bool isAvailable() const override { return active(); }
  bool hasXPU() const override { return active(); }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return active(); }
  std::string showConfig() const override { return "simulated XPU of xpu_amp_dynamo, in host memory"; }
  int32_t getGlobalIdxFromDevice(const c10::Device&) const override { return 0; }
  c10::DeviceIndex getNumGPUs() const override { return active() ? 1 : 0; }
  c10::DeviceIndex deviceCount() const override { return active() ? 1 : 0; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex index) const override { check_device({c10::kXPU, index}); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  void deviceSynchronize(c10::DeviceIndex) const override {}
  c10::Device getDeviceFromPtr(void*) const override { return kDevice; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  bool isPinnedPtr(const void*) const override { return false; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<Generator>(); }
};
static_assert(sizeof(XPUHooks) == sizeof(at::XPUHooksInterface), "hooks are replaced in place");

inline void install_hooks() {
  auto& made = const_cast<at::XPUHooksInterface&>(at::detail::getXPUHooks());
  made.~XPUHooksInterface();
  new (&made) XPUHooks();
}

} // namespace simulated_xpu
