#include "daemon/ballastctl/options.h"

#include <ctype.h>
#include <string.h>

#define MOST_LETTERS 20

/* The row of -f: of the option whose letter it is, else of --file; -1: neither. */
static int find_letter(const struct option *options, int letter)
{
    int found = -1;
    for (int i = 0; options[i].name; i++)
        if (options[i].val == letter)
            return i;
        else if (letter == 'f' && strcmp(options[i].name, "file") == 0)
            found = i;
    return found;
}

/* What getopt calls the short options: those whose val is a letter, and -f. */
static void list_letters(const struct option *options, char list[2 * MOST_LETTERS + 4])
{
    size_t length = 0;
    list[length++] = ':'; /* a missing value is told apart */
    for (int i = 0; options[i].name && length < 2 * MOST_LETTERS; i++)
        if (isalpha(options[i].val)) {
            list[length++] = (char)options[i].val;
            if (options[i].has_arg == required_argument)
                list[length++] = ':';
        }
    list[length] = 0;
    if (!strchr(list, 'f'))
        strcat(list, "f:");
}

int options_next(int argc, char **argv, const struct option *options, int *index)
{
    char letters[2 * MOST_LETTERS + 4];
    list_letters(options, letters);
    opterr = 0;
    int row = -1, found = getopt_long(argc, argv, letters, options, &row);
    if (row < 0 && isalpha(found)) {
        row = find_letter(options, found);
        found = row >= 0 ? options[row].val : '?';
    }
    if (index)
        *index = row;
    if (found == ':') {
        ctl_usage(argv[0], "%s needs a value", argv[optind - 1]);
        return 0;
    }
    if (found == '?') {
        ctl_usage(argv[0], "no option '%s'", argv[optind - 1]);
        return 0;
    }
    return found;
}

int options_end(int argc, char **argv, int least, int most)
{
    int left = argc - optind;
    if (left < least)
        return ctl_usage(argv[0], "an argument is missing");
    if (left > most)
        return ctl_usage(argv[0], "one argument too many: '%s'", argv[optind + most]);
    return CTL_OK;
}

int options_params(int argc, char **argv, const struct option *options,
                   int (*take)(json_t *params, int option), int plain, const char *set_what,
                   json_t **params)
{
    int option, status = CTL_OK;
    *params = json_object();
    while (status == CTL_OK && (option = options_next(argc, argv, options, NULL)) > 0)
        status = take(*params, option);
    if (status == CTL_OK && option == 0)
        status = CTL_USAGE;
    if (status == CTL_OK)
        status = options_end(argc, argv, plain, plain);
    if (status == CTL_OK && json_object_size(*params) == 0)
        status = ctl_usage(argv[0], "%s", set_what);
    if (status != CTL_OK)
        json_decref(*params);
    return status;
}

int options_none(int argc, char **argv, int least, int most)
{
    static const struct option none[] = {{0}};
    if (options_next(argc, argv, none, NULL) == 0)
        return CTL_USAGE;
    return options_end(argc, argv, least, most);
}
