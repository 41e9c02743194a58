// The device that a test program runs on, made once; a global environment fails the program when Vulkan
// validation reported anything.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "vk/device.h"

namespace vkflux::test {
Device& device();

/// The kernels that f has run on d, by name: "matmul_simd:nt". Needs a device with timestamps.
std::set<std::string> kernels_of(Device& d, const std::function<void()>& f);
}  // namespace vkflux::test
