// A conversation in C++: chat MODEL, one line of standard input a turn
#include <ingot.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

struct Close {
    void operator()(ingot_model *m) const { ingot_model_close(m); }
    void operator()(ingot_session *s) const { ingot_session_close(s); }
};

static void check(int status, const ingot_error &error)
{
    if (status != INGOT_OK)
        throw std::runtime_error(error.text);
}

int main(int argc, char **argv)
try {
    if (argc != 2)
        return 2;
    ingot_error error;
    ingot_model *model;
    check(ingot_model_open(&model, argv[1], nullptr, &error), error);
    std::unique_ptr<ingot_model, Close> model_owner(model);
    ingot_session *session;
    check(ingot_session_open(&session, model, "You are brief.", &error), error);
    std::unique_ptr<ingot_session, Close> session_owner(session);
    ingot_sampling sampling;
    ingot_sampling_init(&sampling);
    sampling.max_tokens = 16;
    sampling.temperature = 0;
    for (std::string line; std::getline(std::cin, line);) {
        auto show = [](void *, const ingot_token *t) {
            std::cout.write(t->text, static_cast<std::streamsize>(t->text_len));
            return 0;
        };
        check(ingot_session_say(session, line.c_str(), &sampling, show, nullptr, nullptr, &error), error);
        std::cout << std::endl;
    }
    return 0;
} catch (const std::exception &e) {
    std::cerr << "chat: " << e.what() << "\n";
    return 1;
}
