/* Runs if a program with ThreadSanitizer can run on this host at all. */
int main(void)
{
    return 0;
}
