# Comparisons with the reference implementations on the shared data: Python writes vectors, text_reference reads them.
# Without jinja2 or tokenizers for AWQ_PYTHON these tests are skipped, visibly.
find_program(AWQ_PYTHON NAMES python3 DOC "Python with jinja2 and tokenizers, for comparisons with them")
add_executable(text_reference text/text_reference.cc)
target_include_directories(text_reference PRIVATE ${PROJECT_SOURCE_DIR}/src ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(text_reference PRIVATE awq awq_warnings nlohmann_json::nlohmann_json fmt::fmt)
target_compile_options(text_reference PRIVATE ${AWQ_QUICK})

# Vectors of a script with arguments ARGN, then the comparison.
function(awq_add_reference name module script)
  set(test text_reference.${name})
  execute_process(COMMAND ${AWQ_PYTHON} -c "import ${module}" RESULT_VARIABLE missing OUTPUT_QUIET ERROR_QUIET)
  if(missing OR NOT AWQ_SHARED_DATA)
    awq_add_once(${test} COMMAND sh -c "echo 'skipped: needs the shared data and a python3 that has ${module}' && exit 77")
    return()
  endif()
  set(vectors ${CMAKE_CURRENT_BINARY_DIR}/${name}_vectors.json)
  awq_add_once(${test}.vectors COMMAND ${AWQ_PYTHON} -B ${PROJECT_SOURCE_DIR}/tools/${script} ${vectors} ${ARGN})
  awq_add_once(${test} COMMAND text_reference ${vectors})
  set_tests_properties(${test}.vectors PROPERTIES FIXTURES_SETUP ${test} TIMEOUT 600)
  set_tests_properties(${test} PROPERTIES FIXTURES_REQUIRED ${test} TIMEOUT 600)
endfunction()

set(data ${AWQ_SHARED_DATA}/data)
awq_add_reference(templates jinja2 make_template_vectors.py ${data}/chat-templates)
set(files gpt2.tokenizer gpt_neox.tokenizer llama2.tokenizer mistral01.tokenizer mistral03.tokenizer mpt.tokenizer
  llama3_1/tokenizer qwen3/tokenizer gemma3/tokenizer)
list(TRANSFORM files REPLACE "(.+)" "${data}/tokenizers/\\1.json")
if(TEST text_reference.templates.vectors)
  awq_add_once(text_reference.chats COMMAND text_reference ${CMAKE_CURRENT_BINARY_DIR}/templates_vectors.json ${files} ${data}/tokenizers/falcon/tokenizer.json
    ${data}/models/tinystories-656k/tokenizer.json)
  set_tests_properties(text_reference.chats PROPERTIES FIXTURES_REQUIRED text_reference.templates TIMEOUT 600)
endif()
awq_add_reference(tokenizers tokenizers make_tokenizer_vectors.py ${files} ${data}/text/multilingual.txt
  ${data}/text/human_eval.jsonl)
