#include "vk/interrupt.h"

#include <atomic>
#include <string>

#include "vk/error.h"

namespace vkflux {
namespace {

std::atomic<bool> g_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

}  // namespace

void request_interrupt() noexcept {
  g_requested.store(true, std::memory_order_relaxed);
}

void clear_interrupt() noexcept {
  g_requested.store(false, std::memory_order_relaxed);
}

bool interrupted() noexcept {
  return g_requested.load(std::memory_order_relaxed);
}

void check_interrupted(const char* what) {
  if (interrupted()) throw Error(ErrorCode::cancelled, std::string(what) + " was interrupted");
}

}  // namespace vkflux
