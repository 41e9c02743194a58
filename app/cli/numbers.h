// Numbers as flags of commands.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "app/numbers.h"

namespace vkflux::cli {

/// By this name a numeric flag's check is found: every flag with a number has one, a test goes over all.
constexpr const char* kNumberCheck = "number";

/// Lets only whole numbers in digits through, from `least` to `most`: option->transform(whole(1, 100)),
/// which also takes the zeros in front away, since CLI11 reads them as a sign of octal numbers.
CLI::Validator whole(int64_t least, int64_t most);
/// Only finite decimal numbers from `least` to `most`.
CLI::Validator real(double least, double most);
/// Any 64-bit seed: a whole number from 0 to 2^64 - 1.
CLI::Validator any_seed();

/// Lets through what `parse` doesn't throw at: lists, sizes and other texts with numbers, before any work.
CLI::Validator parsed_by(std::function<void(const std::string&)> parse, const std::string& form);
/// WIDTHxHEIGHT in pixels.
CLI::Validator picture_size();

// Ends of ranges that several flags have: beyond them nothing could be computed.
constexpr int64_t kMostSteps = 1'000'000'000, kMostSamplingSteps = 10000, kMostPictures = 65536,
                  kMostTrainingSide = 4096, kMostWidth = 65536, kMostLayers = 10000, kMostTokens = 1 << 24,
                  kMostMegabytes = 1 << 24;
constexpr double kMostGuidance = 1000, kMostWeight = 1e6, kLeastTemperature = 1e-3, kMostTemperature = 1000;

}  // namespace vkflux::cli
