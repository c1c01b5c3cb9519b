package apps;

/** The provider's service. */
public interface Greeter {
    /** Returns the name of the provider that was called, after the given time. */
    String greet(long milliseconds);
}
