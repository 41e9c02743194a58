// A check that something fails as it should: with this code and with these words in the message.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "vk/error.h"

namespace vkflux::test {

inline void expect_error(ErrorCode code, const std::vector<std::string>& parts,
                         const std::function<void()>& run) {
  try {
    run();
    ADD_FAILURE() << "no error was thrown; expected one with \"" << (parts.empty() ? "" : parts[0]) << "\"";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    for (const std::string& p : parts) {
      EXPECT_NE(std::string(e.what()).find(p), std::string::npos) << "no \"" << p << "\" in: " << e.what();
    }
  }
}

}  // namespace vkflux::test
