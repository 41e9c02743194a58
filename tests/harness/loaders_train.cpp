// Files that training and its data sets read: checkpoints, metrics of an interrupted run, a data set's index
// and captions, the Unicode emoji list, CLDR annotations, a font's ligatures.
#include <spdlog/spdlog.h>

#include <filesystem>

#include "autograd/ops.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "model/io/safetensors.h"
#include "tests/harness/gpu.h"
#include "tests/harness/loaders.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "train/controller/policy_trainer.h"
#include "train/data/dataset.h"
#include "train/data/emoji_list.h"
#include "train/data/gsub.h"
#include "train/metrics.h"
#include "train/trainer.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

class TwoTensors : public Trainer {
 public:
  TwoTensors() : Trainer(device(), options()) {
    w_ = Tensor::full(device_, {3, 2}, 0.1f);
    b_ = Tensor::zeros(device_, {3});
    adopt({{"w", &w_}, {"b", &b_}});
  }

 protected:
  Tensor loss(int64_t, int64_t, std::map<std::string, Tensor>&) override { return op::mean_all(w_); }

 private:
  static TrainOptions options() {
    TrainOptions o;
    o.ema = 0.9f;
    return o;
  }
  Tensor w_, b_;
};

std::string training_checkpoint() {
  std::vector<io::TensorData> tensors;
  for (const char* state : {"param.", "m.", "v.", "ema."}) {
    const std::string prefix(state);
    tensors.push_back(io::tensor_data(prefix + "w", {3, 2}, std::vector<float>(6, 0.5f)));
    tensors.push_back(io::tensor_data(prefix + "b", {3}, std::vector<float>(3, 0.25f)));
  }
  const TempFolder folder;
  std::map<std::string, std::string> metadata{{"format", "vkflux-train-1"}, {"step", "12"}};
  TwoTensors().inputs().write(metadata);
  io::write_safetensors(folder.file("x"), tensors, metadata);
  return io::read_file(folder.file("x"));
}

void use_training_checkpoint(const std::string& path) {
  TwoTensors().load(path);
}

const BackboneLayout kModel = tiny_student_model();

ControllerConfig small_controller() {
  ControllerConfig c;
  c.layers = static_cast<int64_t>(kModel.replaceable().size());
  c.embed_dim = 8;
  c.hidden_dim = 16;
  return c;
}

// With the optimiser's state or without it.
std::string controller_checkpoint(bool resumable) {
  ControllerNet net(small_controller());
  std::vector<io::TensorData> tensors;
  for (const Param& p : parameters(net)) {
    for (const char* prefix : {"", "optimizer.m.", "optimizer.v."}) {
      const std::vector<float> values(static_cast<size_t>(p.shape.numel()), 0.25f);
      tensors.push_back(io::tensor_data(prefix + p.name, {p.shape.begin(), p.shape.end()}, values));
    }
  }
  std::map<std::string, std::string> metadata{{"format", "flux2_ttr_controller_v1"},
                                              {"num_layers", "3"},
                                              {"learning_rate", "0.001"},
                                              {"reward_baseline", "-0.5"},
                                              {"reward_count", "3"}};
  if (resumable) metadata["optimizer.step"] = "7";
  const TempFolder folder;
  io::write_safetensors(folder.file("x"), tensors, metadata);
  return io::read_file(folder.file("x"));
}

void use_controller_checkpoint(const std::string& path) {
  ControllerNet net(small_controller());
  allocate(parameters(net), device());
  PolicyTrainer trainer(net, {1, 1, 0}, {});
  check_controller(path, net.config(), kModel);
  const auto level = spdlog::get_level();
  spdlog::set_level(spdlog::level::off);  // it warns of every setting that differs
  try {
    trainer.restore(io::SafetensorsFile(path));
  } catch (...) {
    spdlog::set_level(level);
    throw;
  }
  spdlog::set_level(level);
}

void write_pictures(const std::string& folder) {
  for (const char* stem : {"a", "b"}) {
    const io::Image8 image{2, 2, std::vector<uint8_t>(16, 200)};
    io::write_png(folder + "/" + stem + ".png", image);
    io::atomic_write(folder + "/" + stem + ".txt", std::string_view("red apple\nan apple\n"));
  }
}

void use_data_set(const std::string& path) {
  const Dataset set = Dataset::open(fs::path(path).parent_path());
  Rng rng(1, 2, 3);
  for (size_t i = 0; i < set.items().size(); ++i) {
    set.image(i, 4);
    sample_caption(set.items()[i], {}, rng);
  }
}

// One ligature lookup: {10, 20, 30} -> 98, {10, 20} -> 99; directly and through an extension.
std::string ligature_table(bool extension) {
  std::vector<uint16_t> words{1, 0, 0, 0, 10, 1, 4, static_cast<uint16_t>(extension ? 7 : 4), 0, 1, 8};
  const auto append = [&](std::initializer_list<uint16_t> more) {
    words.insert(words.end(), more.begin(), more.end());
  };
  if (extension) append({1, 4, 0, 8});
  append({1, 8, 1, 14, 1, 1, 10});
  append({2, 6, 14, 98, 3, 20, 30, 99, 2, 20});
  std::string bytes;
  for (const uint16_t w : words) bytes += {static_cast<char>(w >> 8), static_cast<char>(w)};
  return bytes;
}

void use_ligatures(const std::string& path) {
  const std::string bytes = io::read_file(path);
  const std::vector<uint8_t> table(bytes.begin(), bytes.end());
  Ligatures::parse(table).substitute({10, 20, 30});
}

constexpr const char* kEmojiList =
    "# Version: 15.0\n# group: Smileys & Emotion\n# subgroup: face-smiling\n"
    "1F600 ; fully-qualified # \U0001F600 E1.0 grinning face\n"
    "263A FE0F ; fully-qualified # \u263A E0.6 smiling face\n263A ; unqualified # \u263A E0.6 smiling face\n"
    "# group: Flags\n1F3C1 ; fully-qualified # \U0001F3C1 E0.6 chequered flag\n";

void use_emoji_list(const std::string& path) {
  const std::string text = io::read_file(path);
  emoji_test_version(text);
  for (const Emoji& e : parse_emoji_test(text)) caption_text(e.key() + e.name);
}

}  // namespace

std::vector<LoaderCase> train_loaders() {
  LoaderCase checkpoint{"training_checkpoint",
                        "last.safetensors",
                        {training_checkpoint()},
                        use_training_checkpoint,
                        repair_safetensors};
  checkpoint.mismatch = "made from other inputs or settings";
  checkpoint.rounds = 200;
  LoaderCase metrics{"metrics",
                     "metrics.jsonl",
                     {"{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":null}\n{\"step\":30,\"loss\":1}\n"}};
  metrics.rounds = 100;
  metrics.tolerant = true;
  metrics.load = [](const std::string& p) { jsonl_sink(p, 2); };
  LoaderCase index{
      "data_set_index",
      "index.json",
      {R"({"items":[{"file":"a.png","group":"g","splits":["s"],"tintable":true,"version":"1.0"},)"
       R"({"file":"b.png"}]})"},
      use_data_set,
      {},
      write_pictures};
  LoaderCase captions{"captions", "a.txt", {"red apple\r\nan apple\n\n"}, use_data_set, {}, write_pictures};
  captions.tolerant = true;
  LoaderCase annotations{
      "annotations",
      "en.xml",
      {"<ldml><annotation cp=\"&lt;\">less &amp; | arrow</annotation><annotation cp=\"&lt;\" "
       "type=\"tts\">x</annotation></ldml>"}};
  annotations.load = [](const std::string& p) { parse_annotations(io::read_file(p)); };
  LoaderCase routing{"controller_checkpoint",
                     "last.safetensors",
                     {controller_checkpoint(true), controller_checkpoint(false)},
                     use_controller_checkpoint,
                     repair_safetensors};
  routing.mismatch = "in the file and";
  routing.rounds = 200;
  return {checkpoint,  routing,
          metrics,     index,
          captions,    {"emoji_list", "emoji-test.txt", {kEmojiList}, use_emoji_list},
          annotations, {"ligatures", "x.gsub", {ligature_table(false), ligature_table(true)}, use_ligatures}};
}

}  // namespace vkflux::test
