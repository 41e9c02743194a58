// The device that a test program runs on, made once; a global environment fails the program when Vulkan
// validation reported anything.
#pragma once

#include "vk/device.h"

namespace vkflux::test {
Device& device();
}  // namespace vkflux::test
