#include "model/lora/keys.h"

#include <array>

namespace vkflux::lora {
namespace {

struct Ending {
  std::string_view text;
  Role role;
};
// A longer one comes before those that it ends with.
constexpr std::array kEndings{
    Ending{".lora_linear_layer.down.weight", Role::down},
    Ending{".lora_linear_layer.up.weight", Role::up},
    Ending{".lora_down.weight", Role::down},
    Ending{".lora_up.weight", Role::up},
    Ending{".lora_up.bias", Role::up_bias},
    Ending{".lora_mid.weight", Role::core},
    Ending{".lora.down.weight", Role::down},
    Ending{".lora.up.weight", Role::up},
    Ending{".lora_A.weight", Role::down},
    Ending{".lora_B.weight", Role::up},
    Ending{".lora_B.bias", Role::up_bias},
    Ending{".lora_A", Role::down},
    Ending{".lora_B", Role::up},
    Ending{".down.weight", Role::down},
    Ending{".up.weight", Role::up},
    Ending{".alpha", Role::alpha},
    Ending{".dora_scale", Role::magnitude},
    Ending{".lora_magnitude_vector.weight", Role::magnitude},
    Ending{".lora_magnitude_vector", Role::magnitude},
    Ending{".hada_w1_a", Role::w1_a},
    Ending{".hada_w1_b", Role::w1_b},
    Ending{".hada_w2_a", Role::w2_a},
    Ending{".hada_w2_b", Role::w2_b},
    Ending{".hada_t1", Role::t1},
    Ending{".hada_t2", Role::t2},
    Ending{".lokr_w1", Role::k1},
    Ending{".lokr_w1_a", Role::k1_a},
    Ending{".lokr_w1_b", Role::k1_b},
    Ending{".lokr_w2", Role::k2},
    Ending{".lokr_w2_a", Role::k2_a},
    Ending{".lokr_w2_b", Role::k2_b},
    Ending{".lokr_t2", Role::kt2},
    Ending{".diff", Role::diff},
    Ending{".diff_b", Role::diff_bias},
    Ending{".w_norm", Role::diff},
    Ending{".b_norm", Role::diff_bias},
    Ending{".oft_blocks", Role::foreign},
    Ending{".oft_diag", Role::foreign},
    Ending{".boft_blocks", Role::foreign},
    Ending{".a1.weight", Role::foreign},
    Ending{".a2.weight", Role::foreign},
    Ending{".b1.weight", Role::foreign},
    Ending{".b2.weight", Role::foreign},
    Ending{".on_input", Role::foreign},
    Ending{".lora_embedding_A", Role::foreign},
    Ending{".lora_embedding_B", Role::foreign},
};

// With an adapter's name in it: ".lora_A.NAME.weight".
constexpr std::array kNamed{Ending{".lora_A.", Role::down}, Ending{".lora_B.", Role::up},
                            Ending{".lora_magnitude_vector.", Role::magnitude}};

std::optional<Key> named_adapter(const std::string& tensor) {
  for (const Ending& e : kNamed) {
    const size_t at = tensor.rfind(e.text);
    if (at == std::string::npos) continue;
    std::string_view rest = std::string_view(tensor).substr(at + e.text.size());
    Role role = e.role;
    if (rest.ends_with(".weight")) {
      rest.remove_suffix(7);
    } else if (rest.ends_with(".bias") && role == Role::up) {
      rest.remove_suffix(5);
      role = Role::up_bias;
    } else if (role != Role::magnitude) {
      continue;
    }
    if (!rest.empty() && rest.find('.') == rest.npos) return Key{tensor.substr(0, at), role, e.text};
  }
  return {};
}

}  // namespace

std::optional<Key> split_key(const std::string& tensor) {
  for (const Ending& e : kEndings) {
    if (tensor.size() > e.text.size() && tensor.ends_with(e.text))
      return Key{tensor.substr(0, tensor.size() - e.text.size()), e.role, e.text};
  }
  return named_adapter(tensor);
}

std::string_view dialect_of(const Key& key) {
  struct Row {
    std::string_view start, dialect;
  };
  constexpr std::array kRows{Row{"lora_unet_", "kohya"},
                             Row{"lora_te", "kohya"},
                             Row{"lora_transformer_", "OneTrainer"},
                             Row{"lycoris_", "LyCORIS"},
                             Row{"base_model.", "PEFT"},
                             Row{"diffusion_model.", "ComfyUI"},
                             Row{"model.diffusion_model.", "ComfyUI"},
                             Row{"transformer.", "diffusers"},
                             Row{"text_encoder", "diffusers"}};
  if (key.module.find(".processor.") != key.module.npos) return "XLabs";
  for (const Row& row : kRows)
    if (key.module.starts_with(row.start)) return row.dialect;
  return "names without a prefix";
}

}  // namespace vkflux::lora
