# Shaders: every shaders/*.comp becomes SPIR-V embedded in the vk library.
#
# A shader's head declares the modules it is built into, one per line:
#     //@variant NAME [requirement,...] [DEFINE=VALUE ...]
# No such line means one module named "f32". A requirement names a capability of the *compiler* (probed below) and of the
# *device* (checked when the kernel is made): fp16 int8 int64 coopmat bf16 dot.
# A module whose requirement the compiler lacks is taken from shaders/prebuilt, or left out, which is said once.
include("${CMAKE_CURRENT_LIST_DIR}/ShaderVariants.cmake")

set(VKFLUX_GLSLC "" CACHE FILEPATH "GLSL compiler to use instead of the one on PATH (a newer one builds more variants)")
if(VKFLUX_GLSLC)
  set(GLSLC "${VKFLUX_GLSLC}")
else()
  find_program(GLSLC glslc REQUIRED)
endif()

function(vkflux_probe_glsl feature extension_lines out)
  set(key "VKFLUX_GLSL_${feature}_${GLSLC}")
  string(MAKE_C_IDENTIFIER "${key}" key)
  if(NOT DEFINED CACHE{${key}})
    set(file "${CMAKE_BINARY_DIR}/probe/${feature}.comp")
    file(WRITE "${file}" "#version 450\n${extension_lines}\nlayout(local_size_x=1) in;\nvoid main(){}\n")
    execute_process(COMMAND "${GLSLC}" --target-env=vulkan1.2 "${file}" -o "${file}.spv"
                    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    if(failed)
      set(${key} OFF CACHE INTERNAL "")
    else()
      set(${key} ON CACHE INTERNAL "")
    endif()
  endif()
  set(${out} ${${key}} PARENT_SCOPE)
endfunction()

vkflux_probe_glsl(fp16 "#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require" HAVE_fp16)
vkflux_probe_glsl(int8 "#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require" HAVE_int8)
vkflux_probe_glsl(int64 "#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require" HAVE_int64)
vkflux_probe_glsl(coopmat "#extension GL_KHR_cooperative_matrix : require" HAVE_coopmat)
vkflux_probe_glsl(bf16 "#extension GL_EXT_bfloat16 : require" HAVE_bf16)
vkflux_probe_glsl(dot "#extension GL_EXT_integer_dot_product : require" HAVE_dot)

# Writes the committed module as C words; `taken` is false when there is none.
function(vkflux_take_prebuilt dir shader line id inc taken)
  set(${taken} OFF PARENT_SCOPE)
  vkflux_prebuilt_hash("${dir}" "${id}" hash)
  if(NOT hash)
    return()
  endif()
  vkflux_shader_sources("${dir}" "${shader}" sources)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${sources} "${dir}/prebuilt/manifest.txt")
  vkflux_module_hash("${dir}" "${shader}" "${line}" wanted)
  if(NOT hash STREQUAL wanted)
    message(FATAL_ERROR "shaders/prebuilt/${id}.spv is not made from the present sources, and ${GLSLC} is too old to build it. "
                        "Run scripts/prebuild_shaders with a newer glslc, or set VKFLUX_GLSLC to one.")
  endif()
  file(READ "${dir}/prebuilt/${id}.spv" bytes HEX)
  string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1," words "${bytes}")
  file(CONFIGURE OUTPUT "${inc}" @ONLY CONTENT "{${words}}\n")
  set(${taken} ON PARENT_SCOPE)
endfunction()

# The C++ struct of a shader's specialisation constants (autograd/args.h): "row_norm" becomes RowNorm.
function(vkflux_spec_struct stem constants out)
  string(REPLACE "_" ";" words "${stem}")
  set(name "")
  foreach(word IN LISTS words)
    string(SUBSTRING "${word}" 0 1 first)
    string(SUBSTRING "${word}" 1 -1 rest)
    string(TOUPPER "${first}" first)
    string(APPEND name "${first}${rest}")
  endforeach()
  set(fields "")
  foreach(constant IN LISTS constants)
    string(APPEND fields "  Constant ${constant};\n")
  endforeach()
  set(${out} "struct ${name} {\n  static constexpr const char* kShader = \"${stem}\";\n${fields}};\n" PARENT_SCOPE)
endfunction()

# Sets VKFLUX_SHADER_SOURCES (the generated registry) and declares the compile steps.
function(vkflux_compile_shaders dir)
  file(GLOB shaders CONFIGURE_DEPENDS "${dir}/*.comp")
  set(out "${CMAKE_BINARY_DIR}/spirv")
  file(MAKE_DIRECTORY "${out}")
  set(registry "")
  set(rows "")
  set(left_out "")
  set(prebuilt "")
  set(incs "")
  set(specs "")
  file(GLOB common CONFIGURE_DEPENDS "${dir}/common/*.glsl")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${common})
  foreach(shader IN LISTS shaders)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${shader}")
    get_filename_component(stem "${shader}" NAME_WE)
    vkflux_shader_constants("${dir}" "${shader}" constants)
    string(REPLACE ";" "," constant_names "${constants}")
    vkflux_spec_struct("${stem}" "${constants}" struct)
    string(APPEND specs "${struct}")
    vkflux_shader_variants("${shader}" variants)
    foreach(line IN LISTS variants)
      vkflux_parse_variant("${line}" variant requires defines)
      set(missing "")
      foreach(feature IN LISTS requires)
        if(NOT HAVE_${feature})
          list(APPEND missing ${feature})
        endif()
      endforeach()
      set(id "${stem}__${variant}")
      set(inc "${out}/${id}.inc")
      if(missing)
        vkflux_take_prebuilt("${dir}" "${shader}" "${line}" "${id}" "${inc}" taken)
        if(NOT taken)
          list(APPEND left_out "${stem}:${variant} (${missing})")
          continue()
        endif()
        string(APPEND prebuilt " ${stem}:${variant}")
      else()
        add_custom_command(
          OUTPUT "${inc}"
          COMMAND "${GLSLC}" --target-env=vulkan1.2 -O -mfmt=c -Werror ${defines} -I "${dir}" -I "${dir}/common"
                  -MD -MF "${inc}.d" -MT "${inc}" "${shader}" -o "${inc}"
          DEPENDS "${shader}"
          DEPFILE "${inc}.d"
          COMMENT "Shader ${stem}:${variant}"
          VERBATIM)
      endif()
      list(APPEND incs "${inc}")
      string(REPLACE ";" "," requires "${requires}")
      string(APPEND registry "const uint32_t ${id}[] =\n#include \"${inc}\"\n;\n")
      string(APPEND rows "    {\"${stem}\", \"${variant}\", \"${requires}\", \"${constant_names}\", ${id}, sizeof(${id}) / 4},\n")
    endforeach()
  endforeach()
  if(prebuilt)
    message(STATUS "Shader variants taken from shaders/prebuilt, newer than this compiler:${prebuilt}")
  endif()
  if(left_out)
    list(JOIN left_out ", " text)
    message(STATUS "Shader variants left out, this compiler can't build them (set VKFLUX_GLSLC to a newer one): ${text}")
  endif()
  file(GLOB args_headers CONFIGURE_DEPENDS RELATIVE "${dir}" "${dir}/*.args.h")
  set(includes "")
  foreach(header IN LISTS args_headers)
    string(APPEND includes "#include \"${header}\"\n")
  endforeach()
  file(CONFIGURE OUTPUT "${out}/all_args.h" @ONLY CONTENT "// Generated by cmake/Shaders.cmake.\n${includes}")
  file(CONFIGURE OUTPUT "${out}/all_specs.h" @ONLY CONTENT "// Generated by cmake/Shaders.cmake.\n${specs}")
  file(CONFIGURE OUTPUT "${out}/registry.cpp" @ONLY CONTENT
"// Generated by cmake/Shaders.cmake: the SPIR-V of every shader variant.
#include \"vk/spirv.h\"
namespace vkflux {
namespace {
${registry}const SpirvModule kModules[] = {
${rows}};
}  // namespace
std::span<const SpirvModule> spirv_modules() { return kModules; }
}  // namespace vkflux
")
  set_source_files_properties("${out}/registry.cpp" PROPERTIES OBJECT_DEPENDS "${incs}")
  set(VKFLUX_SHADER_SOURCES "${out}/registry.cpp" PARENT_SCOPE)
endfunction()
