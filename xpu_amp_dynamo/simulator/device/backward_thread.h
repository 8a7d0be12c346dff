// Autograd starts one thread for each device when the first backward runs. Where that was before the simulated
// XPU came, the thread is missing.
#pragma once

#include <torch/csrc/autograd/engine.h>

#include <memory>
#include <thread>

namespace simulated_xpu {

struct OpenedEngine : torch::autograd::Engine {
  static std::vector<std::shared_ptr<torch::autograd::ReadyQueue>>& queues(Engine& engine) {
    return engine.*(&OpenedEngine::device_ready_queues_);
  }
};

inline void ensure_backward_thread() {
  auto& engine = torch::autograd::Engine::get_default_engine();
  engine.initialize_device_threads_pool();
  auto& queues = OpenedEngine::queues(engine);
  if (queues.empty()) {
    auto queue = std::make_shared<torch::autograd::ReadyQueue>();
    queues.push_back(queue);
    std::thread([&engine, queue] { engine.thread_init(0, queue); }).detach();
  }
}

} // namespace simulated_xpu
