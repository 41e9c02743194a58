#include "app/cli/cli.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <new>
#include <sstream>

#include "app/cli/sample.h"
#include "app/numbers.h"
#include "autograd/run.h"

namespace vkflux::cli {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string duration(double seconds) {
  const int s = static_cast<int>(seconds);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::out_of_device_memory:
    case ErrorCode::out_of_host_memory:
    case ErrorCode::unsupported:
      return kLimit;
    case ErrorCode::format:
    case ErrorCode::io:
      return kBadFile;
    case ErrorCode::device_lost:
      return kDeviceLost;
    case ErrorCode::verification_failed:
      return kVerificationFailed;
    case ErrorCode::no_device:
      return kNoDevice;
    case ErrorCode::cancelled:
      return kInterrupted;
    case ErrorCode::invalid_argument:
      return kUsage;
    case ErrorCode::internal:
      return 1;
  }
  return 1;
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& what,
                      const std::string& example, std::shared_ptr<Common> common, std::function<int()> run) {
  CLI::App* c = app.add_subcommand(name, what);
  c->footer("\nExample:\n  " + example + "\n");
  c->add_option("--device", common->device,
                "Vulkan device: its number or part of its name (see `vkflux devices`)");
  c->add_flag("--json", common->json, "machine-readable output on stdout");
  c->callback([common, run = std::move(run)] {
    const int code = run();
    if (code != kOk) throw CLI::RuntimeError(code);
  });
  return c;
}

std::unique_ptr<Device> open_device(const Common& common, uint64_t vram) {
  check_forced_variants();
  DeviceOptions options;
  options.select = common.device;
  options.memory_budget = vram;
  return Device::create(options);
}

std::pair<int64_t, int64_t> parse_size(const std::string& text) {
  if (text.empty()) return {0, 0};
  return size_in_pixels(text, "--size");
}

nlohmann::ordered_json settings_of(const CLI::App& command) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  const auto value = [](const std::string& text) {
    const auto number = nlohmann::ordered_json::parse(text, nullptr, false);
    return number.is_number() || number.is_boolean() ? number : nlohmann::ordered_json(text);
  };
  for (const CLI::Option* option : command.get_options()) {
    std::string name = option->get_single_name();
    std::replace(name.begin(), name.end(), '-', '_');
    std::vector<std::string> texts = option->results();
    if (texts.empty() && !option->get_default_str().empty()) texts = {option->get_default_str()};
    for (const std::string& text : texts) out[name].push_back(value(text));
    if (texts.size() == 1) out[name] = value(texts.front());
  }
  return out;
}

Progress::Progress(std::string what, int64_t total, int64_t done)
    : what_(std::move(what)),
      total_(total),
      first_(done),
      started_(now()),
      terminal_(isatty(STDERR_FILENO)) {}

Progress::~Progress() {
  if (terminal_ && last_ > 0) write_note("\n");
}

void Progress::update(int64_t done, const std::string& note) {
  const double t = now();
  if (done < total_ && t - last_ < (terminal_ ? 0.2 : 30.0)) return;
  last_ = t;
  const double elapsed = t - started_,
               fraction = total_ ? static_cast<double>(done) / static_cast<double>(total_) : 1;
  const double left =
      done > first_ ? elapsed * static_cast<double>(total_ - done) / static_cast<double>(done - first_) : 0;
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(fraction * kWidth);
  const std::string line =
      fmt::format("{} [{}{}] {}/{} {} left {} {}", what_, std::string(static_cast<size_t>(filled), '#'),
                  std::string(static_cast<size_t>(kWidth - filled), '.'), done, total_, duration(elapsed),
                  duration(left), note);
  write_note(std::string(terminal_ ? "\r\033[K" : "") + line + (terminal_ ? "" : "\n"));
}

// An empty path or choice is a mistake of a script, not a wish for the default.
static void refuse_empty_texts(CLI::App& command) {
  for (CLI::App* below : command.get_subcommands({})) refuse_empty_texts(*below);
  for (CLI::Option* option : command.get_options()) {
    const std::string name = option->get_name();
    const bool may_be = name == "--prompt" || name == "--negative" || name == "--unseen";
    if (option->get_type_size() != 0 && !may_be)
      option->check(
          CLI::Validator([](const std::string& text) { return text.empty() ? "it is empty" : ""; }, "", ""));
  }
}

std::unique_ptr<CLI::App> make_app() {
  auto made =
      std::make_unique<CLI::App>("vkflux runs and trains Flux diffusion transformers on any Vulkan device.");
  CLI::App& app = *made;
  app.set_version_flag("--version", "vkflux 0.1.0");
  app.require_subcommand(1);
  app.footer(
      "\nExit codes: 0 ok, 2 usage, 3 out of memory, over a limit or not implemented (another kind of model, "
      "say),\n"
      "4 bad file, 5 device lost, 6 verification failed, 7 no suitable device, 130 interrupted.\n"
      "Results go to stdout, progress and messages to stderr.\n");
  add_devices(app);
  add_inspect(app);
  add_dataset(app);
  add_train(app);
  add_train_controller(app);
  add_evaluate_controller(app);
  add_eval(app);
  add_sample(app);
  add_plan(app);
  add_report(app);
  add_verify(app);
  add_bench(app);
  add_kernels(app);
  add_distill(app);
  add_tokenize(app);
  add_convert(app);
  for (CLI::App* command : app.get_subcommands({})) refuse_empty_texts(*command);
  return made;
}

int run(int argc, const char* const* argv) {
  spdlog::set_default_logger(spdlog::stderr_color_mt("vkflux"));
  spdlog::set_pattern("%^%l%$: %v");
  const std::unique_ptr<CLI::App> app = make_app();
  try {
    app->parse(argc, argv);
    return kOk;
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();
  } catch (const CLI::ParseError& e) {
    std::ostringstream out, notes;
    const int code = app->exit(e, out, notes);
    write_out(out.str());
    write_note(notes.str());
    return code == 0 ? kOk : kUsage;
  } catch (const Error& e) {
    spdlog::error("{}", e.what());
    return exit_code(e.code());
  } catch (const std::bad_alloc&) {
    spdlog::error("out of host memory");
    return kLimit;
  } catch (const std::filesystem::filesystem_error& e) {
    spdlog::error("{}", e.what());
    return kBadFile;
  } catch (const std::exception& e) {
    spdlog::error("internal error: {}", e.what());
    return 1;
  }
}

}  // namespace vkflux::cli
