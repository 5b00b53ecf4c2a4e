//! `/proc/PID/status`: fields of its text, by name. A line break in a process's name is escaped there by the kernel, so
//! no process can write a field of its own.

/// What stands behind `name` and the colon.
pub fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    fields
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim())
}

/// The id of the process or thread in the innermost pid namespace: what it calls itself.
pub fn innermost_id(status: &str) -> Option<u32> {
    let mut ids = field(status, "NSpid")?.split_ascii_whitespace();
    ids.next_back()?.parse().ok()
}

/// KiB of code that a process maps besides its executable's: what its libraries have.
pub fn library_code(status: &str) -> Option<u64> {
    let mut words = field(status, "VmLib")?.split_ascii_whitespace();
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tVmLib: 1\nNSpid:\t700\t7\nVmLib:\t   12 kB\nGroups:\t \n";
        assert_eq!(field(status, "Name"), Some("VmLib: 1"));
        assert_eq!(field(status, "VmLib"), Some("12 kB"));
        assert_eq!(library_code(status), Some(12));
        assert_eq!(field(status, "Groups"), Some(""));
        assert_eq!(field(status, "Vm"), None);
        assert_eq!(field("", "Name"), None);
    }

    #[test]
    fn the_innermost_id_is_the_last() {
        assert_eq!(innermost_id("Pid:\t7\nNSpid:\t700\t7\n"), Some(7));
        assert_eq!(innermost_id("NSpid:\t700\n"), Some(700));
        assert_eq!(innermost_id("Pid:\t7\n"), None);
    }
}
